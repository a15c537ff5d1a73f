//! What one instance carries: its request, what it answered so far, and its limits. Lives in the interpreter's store.

use std::{sync::Arc, time::Instant};

use wasmi::{
    Memory, ResourceLimiter,
    errors::{MemoryError, TableError},
};
use wasmi_core::LimiterError;

use crate::{
    actor::{HostCall, Outcalls, console::Console, settings::Settings},
    error::{Error, Result},
    lock::Mutex,
    wire::Trace,
};

/// What all instances of one actor share.
pub struct Surroundings {
    /// The actor's public key.
    pub key: Arc<str>,
    /// The limits of this host.
    pub settings: Arc<Settings>,
    /// Who answers host calls and takes log texts.
    pub outcalls: Arc<dyn Outcalls>,
    /// Rate of log texts, shared by all instances.
    pub console: Mutex<Console>,
}

/// The state of one instance, from its request to its outcome.
pub struct Guest {
    /// What the instance shares with the other ones of its actor.
    pub surroundings: Arc<Surroundings>,
    /// The operation asked for.
    pub operation: String,
    /// Its body.
    pub payload: Vec<u8>,
    /// Whether `__guest_request` was called: the request is handed out once.
    pub request_taken: bool,
    /// Set by `__guest_response`; the last call wins.
    pub response: Option<Vec<u8>>,
    /// Set by `__guest_error`.
    pub error: Option<String>,
    /// The answer to the last host call, until the guest takes it.
    pub host_response: Option<Vec<u8>>,
    /// The error of the last host call, until the guest takes it.
    pub host_error: Option<String>,
    /// A host call that waits for its answer.
    pub pending: Option<HostCall>,
    /// The instance's memory, once somebody looked it up.
    pub memory: Option<Memory>,
    /// What the instance may allocate.
    pub bounds: Bounds,
    /// When the invocation ends, whatever happens.
    pub deadline: Instant,
    /// How many invocations led to this one.
    pub depth: u8,
    /// What ties it to the request it serves, once it came or was needed.
    pub trace: Option<Trace>,
    /// How much of the payload a WASI command has read from its stdin.
    pub stdin_read: usize,
    /// Whether the module is a WASI command: only `_start`, request on stdin, response on stdout.
    pub command: bool,
}

impl Guest {
    /// A guest that has not been asked for anything yet.
    pub fn new(surroundings: Arc<Surroundings>, deadline: Instant, depth: u8, trace: Option<Trace>) -> Self {
        let bounds = Bounds::new(&surroundings.settings);
        Self {
            surroundings,
            operation: String::new(),
            payload: Vec::new(),
            request_taken: false,
            response: None,
            error: None,
            host_response: None,
            host_error: None,
            pending: None,
            memory: None,
            bounds,
            deadline,
            depth,
            trace,
            stdin_read: 0,
            command: false,
        }
    }

    /// Asks for `operation`: what was said before is forgotten (`protocol/actor-abi.md §3, step 3`).
    pub fn request(&mut self, operation: String, payload: Vec<u8>) {
        self.operation = operation;
        self.payload = payload;
        self.request_taken = false;
        self.response = None;
        self.error = None;
        self.host_response = None;
        self.host_error = None;
    }

    /// Stores what the outside world answered to a host call and says what `__host_call` returns.
    pub fn answer(&mut self, answer: Result<Vec<u8>, String>) -> i32 {
        let limit = self.surroundings.settings.payload_bytes;
        let answer = answer.and_then(|body| {
            if body.len() <= limit {
                return Ok(body);
            }
            Err(format!("the answer has {} bytes, the limit is {limit} (WASMCLOUD_ACTOR_PAYLOAD_BYTES)", body.len()))
        });
        match answer {
            Ok(body) => {
                self.host_response = Some(body);
                self.host_error = None;
                HOST_CALL_SUCCEEDED
            }
            Err(text) => {
                self.host_response = None;
                self.host_error = Some(text);
                HOST_CALL_FAILED
            }
        }
    }

    /// The outcome of an invocation whose `__guest_call` returned `code`, in the order of `protocol/actor-abi.md §3,
    /// step 5`.
    pub fn outcome(&mut self, code: i32) -> Result<Vec<u8>> {
        if let Some(text) = self.error.take() {
            return Err(Error::guest(text));
        }
        if let Some(text) = self.host_error.take() {
            return Err(Error::guest(text));
        }
        if code != GUEST_CALL_SUCCEEDED {
            return Err(Error::guest(format!("operation failed with exit code `{code}`")));
        }
        Ok(self.response.take().unwrap_or_default())
    }
}

/// What `__guest_call` returns on success.
pub const GUEST_CALL_SUCCEEDED: i32 = 1;
/// What `__host_call` returns when the call succeeded.
pub const HOST_CALL_SUCCEEDED: i32 = 1;
/// What `__host_call` returns when the call failed; guests test for anything but 1.
pub const HOST_CALL_FAILED: i32 = -1;

/// What an instance may allocate, and what it was last refused.
#[derive(Debug)]
pub struct Bounds {
    memory_bytes: usize,
    table_elements: usize,
    tables: usize,
    running: bool,
    refused: Option<Refused>,
}

/// An allocation that a guest was refused.
#[derive(Clone, Copy, Debug)]
enum Refused {
    /// It asked for so many bytes of memory.
    Memory(usize),
    /// It started with a table of so many elements.
    Table(usize),
    /// It wanted a table to grow.
    TableGrowth,
}

impl Bounds {
    fn new(settings: &Settings) -> Self {
        Self {
            memory_bytes: settings.memory_bytes,
            table_elements: settings.table_elements,
            tables: usize::try_from(settings.tables).unwrap_or(usize::MAX),
            running: false,
            refused: None,
        }
    }

    /// From now on tables stay as they are: no compiler emits `table.grow`, and wasmi 2.0 resumes a guest at the wrong
    /// instruction when it runs out of fuel there.
    pub fn freeze_tables(&mut self) {
        self.running = true;
    }

    /// The limit that was in the guest's way, for the text of the error it ended with.
    pub fn refusal(&self) -> Option<String> {
        Some(match self.refused? {
            Refused::Memory(bytes) => format!(
                "it asked for {bytes} bytes of memory, the limit is {} (WASMCLOUD_ACTOR_MEMORY_BYTES)",
                self.memory_bytes
            ),
            Refused::TableGrowth => "it asked for a larger table, which is never granted".to_string(),
            Refused::Table(elements) => format!(
                "it asked for a table of {elements} elements, the limit is {} (WASMCLOUD_ACTOR_TABLE_ELEMENTS)",
                self.table_elements
            ),
        })
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> Result<bool, LimiterError> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let granted = desired <= self.memory_bytes;
        if !granted {
            self.refused = Some(Refused::Memory(desired));
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _: &MemoryError) -> Result<(), LimiterError> {
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let granted = !self.running && desired <= self.table_elements;
        if !granted {
            self.refused = Some(if self.running { Refused::TableGrowth } else { Refused::Table(desired) });
        }
        Ok(granted)
    }

    fn table_grow_failed(&mut self, _: &TableError) -> Result<(), LimiterError> {
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        self.tables
    }

    fn memories(&self) -> usize {
        1
    }
}
