//! The words between a host and the supervisor of one provider: JSON, a line each, over the socket that is the supervisor's
//! standard input. When the socket closes, the host is gone and everything ends.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{confine::Confinement, layers::Layers, watch::Limits};

/// Longest line, bytes. The longest holds the host data of a provider with every link a host keeps (4096 of about 600 bytes
/// in base64), and room above. A longer one is refused.
pub const MAX_LINE_BYTES: usize = 8 << 20;

/// What the supervisor is told first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The binary to run.
    pub binary: PathBuf,
    /// Its working directory.
    pub directory: PathBuf,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// What it reads on its standard input, with the end of the line. It holds seeds: wiped when it goes.
    pub host_data: Zeroizing<String>,
    /// What it may use and reach.
    pub confinement: Confinement,
    /// What the supervisor watches.
    pub limits: Limits,
    /// Which layers of it are in force.
    pub layers: Layers,
    /// Processes and threads of the host, which it may not signal.
    pub protected: Vec<i32>,
    /// The control group it is put into, which ends with it.
    pub cgroup: Option<PathBuf>,
}

/// What the supervisor is told later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Ask the provider to end: SIGTERM to it and its process group.
    Terminate,
}

/// What the supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The provider runs.
    Started {
        /// Its process.
        process_id: i32,
    },
    /// It could not be started.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was ended, because it used more than it may.
    Over {
        /// What, and how much.
        reason: String,
    },
    /// It ended.
    Ended {
        /// Its exit status, unless a signal ended it.
        status: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

impl Report {
    /// How the provider ended, for people.
    pub fn words(&self) -> String {
        match self {
            Report::Started { process_id } => format!("runs as process {process_id}"),
            Report::Failed { reason } | Report::Over { reason } => reason.clone(),
            Report::Ended { status: Some(status), .. } if *status == super::confine::CANNOT_CONFINE => {
                format!("exited with status {status}: it could not be confined as its settings ask, see the log above")
            }
            Report::Ended { status: Some(status), .. } if *status == super::confine::CANNOT_EXECUTE => {
                format!("exited with status {status}: its binary could not be executed, see the log above")
            }
            Report::Ended { status: Some(status), .. } => format!("exited with status {status}"),
            Report::Ended { signal: Some(signal), .. } => match signal_name(*signal) {
                Some(name) => format!("was ended by signal {signal} ({name})"),
                None => format!("was ended by signal {signal}"),
            },
            Report::Ended { .. } => "ended".to_owned(),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_its_signal_or_status() {
        let ended = |status, signal| Report::Ended { status, signal }.words();
        assert_eq!(ended(Some(3), None), "exited with status 3");
        assert_eq!(ended(None, Some(11)), "was ended by signal 11 (SIGSEGV)");
        assert_eq!(ended(None, Some(64)), "was ended by signal 64");
        assert!(ended(Some(super::super::confine::CANNOT_EXECUTE), None).contains("could not be executed"));
    }
}
