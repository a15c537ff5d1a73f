//! Whether other processes of the same user may look into this one.
//!
//! Seeds come in the environment, and stay in memory. `/proc/PID/environ` and `mem` show both to every process of the user,
//! and providers are such processes: where the kernel has no Landlock, or a setting switched it off, nothing else keeps them
//! out. So every command, and the supervisor of each provider, forbids it before it reads a setting
//! (`PR_SET_DUMPABLE`). An operator may allow it again, to debug or profile without being root. What a process reads of
//! itself, and what root reads, is as before; there are no core dumps.
//!
//! A helper that executes another program must forbid it again there: the kernel allows it with each new program.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::error::{Error, Result};

/// Keeps others out.
///
/// # Errors
/// [`Kind::Internal`](crate::error::Kind::Internal): the kernel refuses.
pub fn forbid() -> Result<()> {
    set(DumpableBehavior::NotDumpable)
}

/// Lets others in.
///
/// # Errors
/// [`Kind::Internal`](crate::error::Kind::Internal): the kernel refuses.
pub fn allow() -> Result<()> {
    set(DumpableBehavior::Dumpable)
}

fn set(behaviour: DumpableBehavior) -> Result<()> {
    set_dumpable_behavior(behaviour)
        .map_err(|cause| Error::internal(format!("cannot say who may look into this process: {cause}")))
}
