//! One invocation as a plain future: a fresh instance, run in slices of fuel, suspended while it waits.
//!
//! The first slice of a call from outside runs where it is polled. Every further slice takes a turn at a fair gate with
//! one place per thread and lets the executor go round before it runs, so that however many guests spin, anything else
//! waits for about one slice per thread. A call between actors takes a turn from the start, as its caller has just used
//! one. Fuel left over from a slice is kept while the guest waits for a host call: chatting does not stretch a slice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use smol::future;
use wasmi::{Instance, ResumableCall, ResumableCallHostTrap, ResumableCallOutOfFuel, Store, TrapCode, Val};

use crate::{
    actor::{
        assembly_script::Aborted,
        guest::{GUEST_CALL_SUCCEEDED, Guest},
        handle::{Ended, Inner, Until},
        module::{Compiled, Entry},
        permits::Permit,
    },
    error::{Error, Kind, Result},
    wire::Trace,
};

/// Runs `operation` of `actor` in a fresh instance of `compiled` to its end.
pub async fn run(
    actor: &Inner,
    compiled: Arc<Compiled>,
    operation: String,
    payload: Vec<u8>,
    until: Until,
    depth: u8,
    trace: Option<Trace>,
) -> Result<Vec<u8>> {
    let mut turn = if depth > 0 { Some(next_turn(actor, until).await?) } else { None };
    let mut running = Running::new(actor, compiled, operation, payload, until, (depth, trace));
    loop {
        match running.step() {
            Step::Done(outcome) => return outcome,
            Step::OutOfFuel { required } => {
                drop(turn.take());
                turn = Some(next_turn(actor, until).await?);
                running.slice = actor.surroundings.settings.slice_fuel.max(required);
            }
            Step::Waiting => {
                drop(turn.take());
                let call = running.store.data_mut().pending.take();
                let call = call.ok_or_else(|| Error::internal("a guest waits for a host call that it did not make"))?;
                let answer = actor.surroundings.outcalls.host_call(&actor.surroundings.key, call);
                let answer = actor.bounded(until, answer).await?;
                running.answer(answer);
            }
        }
    }
}

/// Waits for a turn on one of the threads and lets the executor run what else is ready.
async fn next_turn(actor: &Inner, until: Until) -> Result<Permit> {
    let place = actor.bounded(until, actor.engine.turns.enter()).await?;
    future::yield_now().await;
    if actor.is_cut() {
        return Err(actor.ended(Ended::Stopped));
    }
    if Instant::now() >= until.at {
        return Err(actor.ended(Ended::Deadline(until)));
    }
    place.map_err(|_| Error::internal("the queue for turns is full, which has no limit"))
}

/// How a slice ended.
enum Step {
    /// The guest is through.
    Done(Result<Vec<u8>>),
    /// The slice's fuel is used up; the next instruction needs so much.
    OutOfFuel {
        /// Fuel of the instruction the guest stopped at.
        required: u64,
    },
    /// The guest waits for the answer to a host call.
    Waiting,
}

/// Where the guest is within the current entry of its module.
enum Position {
    /// Not in it yet.
    Before,
    /// Out of fuel.
    Paused(ResumableCallOutOfFuel),
    /// In a host call.
    InHostCall(ResumableCallHostTrap),
    /// In a host call that was answered with this code.
    Answered(ResumableCallHostTrap, i32),
}

/// One instance at work.
struct Running<'a> {
    actor: &'a Inner,
    compiled: Arc<Compiled>,
    store: Store<Guest>,
    /// The instance, or why there is none.
    instance: Result<Instance, wasmi::Error>,
    /// Number of the current entry.
    entry: usize,
    position: Position,
    /// The request until `__guest_call` is due: what runs before it must not take it.
    request: Option<(String, Vec<u8>)>,
    /// Fuel the invocation may still use.
    budget: u64,
    /// Fuel left of the current slice.
    slice: u64,
}

impl<'a> Running<'a> {
    /// Makes the instance; its start section, if any, has one slice.
    fn new(
        actor: &'a Inner,
        compiled: Arc<Compiled>,
        operation: String,
        payload: Vec<u8>,
        until: Until,
        (depth, trace): (u8, Option<Trace>),
    ) -> Self {
        let settings = &actor.surroundings.settings;
        let mut guest = Guest::new(actor.surroundings.clone(), until.at, depth, trace);
        let mut request = Some((operation, payload));
        if compiled.command
            && let Some((operation, payload)) = request.take()
        {
            guest.command = true;
            guest.operation = operation;
            guest.payload = payload;
        }
        let slice = settings.slice_fuel.min(settings.fuel);
        let (store, instance) = compiled.instantiate(guest, slice);
        let mut running = Self {
            actor,
            compiled,
            store,
            instance,
            entry: 0,
            position: Position::Before,
            request,
            budget: settings.fuel,
            slice,
        };
        running.account(slice);
        running
    }

    /// Takes off what was used of `granted` fuel.
    fn account(&mut self, granted: u64) {
        let left = self.store.get_fuel().unwrap_or(0);
        let used = granted.saturating_sub(left);
        self.budget = self.budget.saturating_sub(used);
        self.slice = self.slice.saturating_sub(used);
    }

    /// Stores the answer to the host call the guest waits for.
    fn answer(&mut self, answer: Result<Vec<u8>, String>) {
        let code = self.store.data_mut().answer(answer);
        self.position = match std::mem::replace(&mut self.position, Position::Before) {
            Position::InHostCall(call) => Position::Answered(call, code),
            other => other,
        };
    }

    /// Runs the guest until it is through, out of fuel or waiting.
    fn step(&mut self) -> Step {
        let instance = match &self.instance {
            Ok(instance) => *instance,
            Err(cause) => return Step::Done(Err(self.failure(cause))),
        };
        while let Some(&entry) = self.compiled.entries.get(self.entry) {
            let granted = self.slice.min(self.budget);
            let mut results = [Val::I32(0)];
            let results_of_entry = if entry == Entry::GuestCall { &mut results[..] } else { &mut [] };
            let run = self.store.set_fuel(granted).and_then(|()| {
                match std::mem::replace(&mut self.position, Position::Before) {
                    Position::Before => self.enter(instance, entry, results_of_entry),
                    Position::Paused(call) => call.resume(&mut self.store, results_of_entry),
                    Position::Answered(call, code) => call.resume(&mut self.store, &[Val::I32(code)], results_of_entry),
                    Position::InHostCall(call) => Ok(ResumableCall::HostTrap(call)),
                }
            });
            self.account(granted);
            let code = match run {
                Ok(ResumableCall::Finished) if entry == Entry::GuestCall => results[0].i32().unwrap_or_default(),
                Ok(ResumableCall::Finished) => GUEST_CALL_SUCCEEDED,
                Ok(ResumableCall::OutOfFuel(call)) => {
                    let required = call.required_fuel();
                    if required > self.budget {
                        return Step::Done(Err(self.actor.out_of_fuel()));
                    }
                    self.position = Position::Paused(call);
                    return Step::OutOfFuel { required };
                }
                Ok(ResumableCall::HostTrap(call)) if self.store.data().pending.is_some() => {
                    self.position = Position::InHostCall(call);
                    return Step::Waiting;
                }
                Ok(ResumableCall::HostTrap(call)) => match call.host_error().i32_exit_status() {
                    Some(0) => GUEST_CALL_SUCCEEDED,
                    Some(status) => {
                        return Step::Done(Err(Error::guest(format!("the actor exited with status {status}"))));
                    }
                    None => return Step::Done(Err(self.failure(call.host_error()))),
                },
                Err(cause) => return Step::Done(Err(self.failure(&cause))),
            };
            self.entry += 1;
            if self.entry == self.compiled.entries.len() {
                return Step::Done(self.store.data_mut().outcome(code));
            }
        }
        Step::Done(Err(Error::internal("a module without entries was run")))
    }

    /// Calls an entry of the module.
    fn enter(&mut self, instance: Instance, entry: Entry, results: &mut [Val]) -> Result<ResumableCall, wasmi::Error> {
        let function = instance.get_func(&self.store, entry.name());
        let function =
            function.ok_or_else(|| wasmi::Error::new(format!("the module lost its export {}", entry.name())))?;
        if entry != Entry::GuestCall {
            return function.call_resumable(&mut self.store, &[], results);
        }
        let (operation, payload) = self.request.take().unwrap_or_default();
        // Both were checked against the payload limit, far below what 32 bits count.
        let lengths = [operation.len(), payload.len()].map(|len| Val::I32(i32::try_from(len).unwrap_or(i32::MAX)));
        self.store.data_mut().request(operation, payload);
        function.call_resumable(&mut self.store, &lengths, results)
    }

    /// The error for what the engine says, with the limit behind it where there is one.
    fn failure(&self, cause: &wasmi::Error) -> Error {
        match cause.as_trap_code() {
            Some(TrapCode::StackOverflow) => self.actor.stack_overflow(),
            // Only the start section runs where it cannot be resumed.
            Some(TrapCode::OutOfFuel) => self.actor.start_section_too_long(),
            _ => match self.store.data().bounds.refusal() {
                Some(refusal) => Error::limit(format!("{cause} ({refusal})")),
                None if is_own_doing(cause) => Error::trap(cause.to_string()),
                None => Error::guest(cause.to_string()),
            },
        }
    }
}

/// Whether the guest did what its module must not do, or called the end of itself.
fn is_own_doing(cause: &wasmi::Error) -> bool {
    const TRAPS: [TrapCode; 8] = [
        TrapCode::UnreachableCodeReached,
        TrapCode::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds,
        TrapCode::IndirectCallToNull,
        TrapCode::IntegerDivisionByZero,
        TrapCode::IntegerOverflow,
        TrapCode::BadConversionToInteger,
        TrapCode::BadSignature,
    ];
    cause.as_trap_code().is_some_and(|code| TRAPS.contains(&code)) || cause.downcast_ref::<Aborted>().is_some()
}

/// Whether `error` is that of a guest that trapped, and not one that it answered with.
pub fn is_trap(error: &Error) -> bool {
    // Out of fuel, stack or memory, or ended by what it did.
    error.kind() == Kind::Limit || error.is_trap()
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let used = self.actor.surroundings.settings.fuel.saturating_sub(self.budget);
        self.actor.counters.fuel.fetch_add(used, Ordering::Relaxed);
    }
}
