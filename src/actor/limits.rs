//! What a caller reads when a limit of the actor was reached: the limit, its value, its setting.

use crate::{
    actor::handle::{Ended, Inner},
    error::Error,
};

impl Inner {
    pub(super) fn ended(&self, ended: Ended) -> Error {
        let name = &self.name;
        match ended {
            Ended::Stopped => Error::unavailable(format!("actor {name} was stopped before it answered")),
            Ended::Deadline(until) if until.own => Error::timeout(format!(
                "actor {name} did not answer within {} ms (WASMCLOUD_ACTOR_DEADLINE_MS)",
                self.surroundings.settings.deadline.as_millis()
            )),
            Ended::Deadline(_) => Error::timeout(format!("actor {name} did not answer before its caller's deadline")),
        }
    }

    pub(super) fn stopping(&self) -> Error {
        Error::unavailable(format!("actor {} is stopping", self.name))
    }

    pub(super) fn payload_too_large(&self, bytes: usize) -> Error {
        Error::limit(format!(
            "the payload has {bytes} bytes, the limit is {} (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
            self.surroundings.settings.payload_bytes
        ))
    }

    pub(super) fn nested_too_deep(&self) -> Error {
        Error::limit(format!(
            "actor {} was not called: actors called each other {} deep, which is the limit (WASMCLOUD_ACTOR_NESTING)",
            self.name, self.surroundings.settings.nesting
        ))
    }

    pub(super) fn queue_full(&self) -> Error {
        Error::busy(format!(
            "actor {} is busy: {} invocations wait already (WASMCLOUD_ACTOR_QUEUE)",
            self.name, self.surroundings.settings.queue
        ))
    }

    pub(super) fn host_queue_full(&self) -> Error {
        Error::busy(format!(
            "the host is busy: {} invocations wait already (WASMCLOUD_QUEUE)",
            self.surroundings.settings.host_queue
        ))
    }

    pub(super) fn out_of_fuel(&self) -> Error {
        Error::limit(format!(
            "actor {} used up its {} units of fuel (WASMCLOUD_ACTOR_FUEL)",
            self.name, self.surroundings.settings.fuel
        ))
    }

    pub(super) fn start_section_too_long(&self) -> Error {
        Error::limit(format!(
            "the start section of actor {} did not end within one slice of {} units of fuel (WASMCLOUD_SLICE_FUEL); \
             work that takes longer belongs into _start",
            self.name, self.surroundings.settings.slice_fuel
        ))
    }

    pub(super) fn stack_overflow(&self) -> Error {
        let settings = &self.surroundings.settings;
        Error::limit(format!(
            "actor {} nested its calls deeper than {} (WASMCLOUD_ACTOR_STACK_DEPTH) or put more than {} bytes on its stack",
            self.name, settings.stack_depth, settings.stack_bytes
        ))
    }
}
