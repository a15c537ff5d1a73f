//! The guest's way out: what it asked for, and who answers.

use std::{future::Future, pin::Pin, time::Instant};

use crate::wire::Trace;

/// One `__host_call` of a guest, its four strings and payload copied out of its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCall {
    /// Link name, `""` for a call to an actor.
    pub binding: String,
    /// Contract id, actor key or call alias.
    pub namespace: String,
    /// `Trait.Method`.
    pub operation: String,
    /// The body.
    pub payload: Vec<u8>,
    /// Until when the calling invocation may run.
    pub deadline: Instant,
    /// Nesting depth of the calling invocation; 0 for one from outside.
    pub depth: u8,
    /// What ties it to the request it serves.
    pub trace: Trace,
}

/// Answers host calls and takes what guests print. The router implements it; tests answer from a table.
pub trait Outcalls: Send + Sync + 'static {
    /// Answers `call` of the actor `caller`. The `Err` text is handed to the guest as it is.
    fn host_call(
        &self,
        caller: &str,
        call: HostCall,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'static>>;

    /// The actor `caller` wrote to `__console_log` (or to stdout or stderr under WASI). Already bounded in length and rate.
    fn console(&self, caller: &str, text: &str);
}
