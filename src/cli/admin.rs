//! How the commands that speak to a running host find it, and the durations they take.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::Sources,
    error::{Kind, Result},
    web::{Client, routes::MAX_CALL_TIMEOUT, socket},
};

/// Which host.
#[derive(Debug, clap::Args)]
pub struct HostArgs {
    /// The host's admin socket [default: WASMCLOUD_ADMIN_SOCKET, or where a host of this user or of the system listens].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl HostArgs {
    /// A client of the host that is meant.
    ///
    /// # Errors
    /// `Unavailable` when none was named and none is found; `Config` when a settings file cannot be read.
    pub fn client(self) -> Result<Client> {
        if let Some(path) = self.socket {
            return Ok(Client::new(path));
        }
        match Sources::gather(Path::new("."), None, Vec::new())?.one(socket::SETTING)? {
            Some(path) => Ok(Client::new(path)),
            None => Client::find(&socket::search_paths(|name| std::env::var(name).ok())),
        }
    }

    /// A client of the host that lives, or `None` where none was named on the command line and none lives.
    ///
    /// # Errors
    /// As [`HostArgs::client`].
    pub fn live_client(self) -> Result<Option<Client>> {
        if self.socket.is_some() {
            return self.client().map(Some);
        }
        let named = Sources::gather(Path::new("."), None, Vec::new())?.one(socket::SETTING)?;
        let places = match named {
            Some(path) => vec![PathBuf::from(path)],
            None => socket::search_paths(|name| std::env::var(name).ok()),
        };
        match Client::find(&places) {
            Err(error) if error.kind() == Kind::Unavailable => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}

/// Reads a number of seconds, fractions allowed, above zero and at most as long as the host allows a call to take.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let form =
        || format!("a number of seconds from 0.001 to {} is needed, 0.5 for instance", MAX_CALL_TIMEOUT.as_secs());
    let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(form)?;
    if (Duration::from_millis(1)..=MAX_CALL_TIMEOUT).contains(&duration) { Ok(duration) } else { Err(form()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_bounds() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("600"), Ok(MAX_CALL_TIMEOUT));
        for text in ["", "0", "-1", "601", "1e99", "NaN", "inf", "2s", "0.0001"] {
            assert!(seconds(text).is_err_and(|text| text.contains("0.5")), "{text}");
        }
    }
}
