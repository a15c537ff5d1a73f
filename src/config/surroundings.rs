//! What defaults follow from: the user, and where the system wants state and sockets.

use std::{collections::BTreeMap, env};

use super::value::first_path;
use crate::web::socket;

/// The directory of this program in the system's state directories.
const NAME: &str = "latticed";

/// The user and the variables of systemd and of the desktop conventions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the user is root.
    pub root: bool,
    /// Whether a service manager started this process as a service.
    pub service: bool,
    /// `STATE_DIRECTORY`, `RUNTIME_DIRECTORY`, `XDG_STATE_HOME`, `XDG_RUNTIME_DIR`, `HOME`, where set.
    pub variables: BTreeMap<String, String>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let names = ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME"];
        let variables = names.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))).collect();
        let own = std::process::id().to_string();
        // The first is there for services that tell when they are ready, the second, on newer systems, for every service
        // and with another number for what a service starts. `INVOCATION_ID` is no sign: a desktop's terminals inherit it.
        let service = env::var_os("NOTIFY_SOCKET").is_some() || env::var("SYSTEMD_EXEC_PID").is_ok_and(|id| id == own);
        Self { root: rustix::process::geteuid().is_root(), service, variables }
    }

    /// Root's, with nothing set.
    #[cfg(test)]
    pub(super) fn of_root() -> Self {
        Self { root: true, service: false, variables: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(|list| first_path(list))
    }

    /// The home directory of the user.
    pub(super) fn home(&self) -> Option<&str> {
        self.path("HOME")
    }

    /// Where state goes; empty where nothing says.
    pub(super) fn state_directory(&self) -> String {
        if let Some(directory) = self.path("STATE_DIRECTORY") {
            return directory.to_owned();
        }
        if self.root {
            return format!("/var/lib/{NAME}");
        }
        let home = || self.path("HOME").map(|home| format!("{home}/.local/state"));
        let base = self.path("XDG_STATE_HOME").map(str::to_owned).or_else(home);
        base.map(|base| format!("{}/{NAME}", base.trim_end_matches('/'))).unwrap_or_default()
    }

    /// Which server may be joined: a service only one that is named, because any user of the machine may serve NATS.
    pub(super) fn join(&self) -> String {
        if self.service { "named" } else { "any" }.to_owned()
    }

    /// What commands over the lattice may do: a person who starts a host by hand has it do everything.
    pub(super) fn remote(&self) -> String {
        if self.service { "login" } else { "full" }.to_owned()
    }

    /// Where the admin socket goes.
    pub(super) fn admin_socket(&self) -> String {
        socket::default_path(|name| self.variables.get(name).cloned()).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Surroundings { root: false, service: false, variables }
    }

    #[test]
    fn state_goes_where_systemd_or_the_user_wants_it() {
        assert_eq!(Surroundings::of_root().state_directory(), "/var/lib/latticed");
        assert_eq!(user(&[("HOME", "/home/ada")]).state_directory(), "/home/ada/.local/state/latticed");
        assert_eq!(user(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s/")]).state_directory(), "/s/latticed");
        assert_eq!(user(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]).state_directory(), "/h/.local/state/latticed");
        assert_eq!(user(&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).state_directory(), "/var/lib/a");
        assert_eq!(user(&[]).state_directory(), "");
    }

    #[test]
    fn a_service_trusts_the_lattice_only_behind_a_login() {
        assert_eq!(user(&[("HOME", "/home/ada")]).remote(), "full");
        assert_eq!(Surroundings { service: true, ..user(&[]) }.remote(), "login");
    }

    #[test]
    fn the_socket_goes_where_systemd_wants_it() {
        assert_eq!(user(&[("RUNTIME_DIRECTORY", "/run/x")]).admin_socket(), "/run/x/admin.sock");
    }
}
