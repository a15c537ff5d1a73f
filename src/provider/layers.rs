//! Which layers of confinement are in force for a provider: what its settings ask for, as far as this kernel has it.

use serde::{Deserialize, Serialize};

use super::{
    confine::{Confinement, Connect},
    landlock, new_code,
};
use crate::error::{Error, Result};

/// The setting, for errors.
pub const SETTING: &str = "WASMCLOUD_PROVIDER_CONFINEMENT";

/// What happens where this kernel cannot confine a provider as its settings ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is not run.
    Required,
    /// It runs with what there is, and the status says what is missing.
    #[default]
    Best,
    /// None of the layers is used, only limits.
    Off,
}

impl Mode {
    /// The words of the setting.
    pub const WORDS: &[&str] = &["required", "best", "off"];

    /// Reads one of [`Mode::WORDS`]; another word was refused before.
    pub fn parse(word: &str) -> Self {
        match word {
            "required" => Mode::Required,
            "off" => Mode::Off,
            _ => Mode::Best,
        }
    }
}

/// What this kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Landlock's rules for files (Linux 5.13).
    pub files: bool,
    /// Its rules for TCP (6.7).
    pub tcp: bool,
    /// Its scopes for signals and abstract sockets (6.12).
    pub scopes: bool,
    /// Filters of system calls.
    pub syscalls: bool,
    /// The switch against writable code (6.3).
    pub new_code: bool,
}

impl Kernel {
    /// Asks the kernel.
    pub fn probe() -> Self {
        Self {
            files: landlock::has_files(),
            tcp: landlock::has_tcp(),
            scopes: landlock::has_scopes(),
            syscalls: rustix::thread::secure_computing_mode().is_ok(),
            new_code: new_code::is_there(),
        }
    }
}

/// Layers that are in force for one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// It sees its own files only.
    pub files: bool,
    /// It connects to the ports of its rules only.
    pub tcp: bool,
    /// No signals to and no abstract sockets of what is outside of it.
    pub scopes: bool,
    /// Its system calls are filtered.
    pub syscalls: bool,
    /// It cannot write code: by the kernel's switch.
    pub code_by_switch: bool,
    /// The same by the filter of system calls.
    pub code_by_filter: bool,
}

impl Layers {
    /// The layers for `confinement` on `kernel`, and what it asks for that the kernel does not have.
    pub fn choose(confinement: &Confinement, kernel: Kernel) -> (Self, Vec<&'static str>) {
        if confinement.mode == Mode::Off {
            return (Self::default(), Vec::new());
        }
        let mut missing = Vec::new();
        let mut layer = |wanted: bool, has: bool, name: &'static str| {
            if wanted && !has {
                missing.push(name);
            }
            wanted && has
        };
        let (landlock, filter) = (confinement.landlock, confinement.seccomp);
        let restricted = landlock && confinement.connect != Connect::Anywhere;
        let files = layer(landlock, kernel.files, "files (Landlock, Linux 5.13)");
        let tcp = layer(restricted, kernel.tcp, "TCP ports (Landlock, Linux 6.7)");
        let scopes = layer(landlock, kernel.scopes, "signals and abstract sockets (Landlock, Linux 6.12)");
        let syscalls = layer(filter, kernel.syscalls, "system calls (seccomp)");
        let fixed = layer(!confinement.jit, kernel.new_code || syscalls, "writable code (Linux 6.3, or seccomp)");
        let layers = Self {
            files,
            tcp,
            scopes,
            syscalls,
            code_by_switch: fixed && kernel.new_code,
            code_by_filter: fixed && !kernel.new_code,
        };
        (layers, missing)
    }

    /// The same, where the settings say that nothing may be missing.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied): something is, and the mode is [`Mode::Required`].
    pub fn require(confinement: &Confinement, kernel: Kernel) -> Result<(Self, Vec<&'static str>)> {
        let (layers, missing) = Self::choose(confinement, kernel);
        if confinement.mode == Mode::Required && !missing.is_empty() {
            return Err(Error::denied(format!(
                "the provider is not run, because {SETTING}=required and this kernel cannot confine its {}; a newer \
                 kernel, {SETTING}=best or a rule for this provider ({}) lets it run",
                missing.join(", "),
                super::rules::Rules::SETTING
            )));
        }
        Ok((layers, missing))
    }

    /// In words, for the status.
    pub fn words(&self, confinement: &Confinement, missing: &[&str]) -> String {
        let mut words = vec![if self.files { "own files (Landlock)" } else { "all files of its user" }.to_owned()];
        match (&confinement.connect, self.tcp) {
            (Connect::Ports(ports), true) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                words.push(format!("TCP to port {} only", ports.join(", ")));
            }
            _ => words.push("TCP to anywhere".to_owned()),
        }
        if self.scopes {
            words.push("no signals or abstract sockets of others".to_owned());
        }
        if self.syscalls {
            words.push("system calls filtered".to_owned());
        }
        if self.code_by_switch || self.code_by_filter {
            words.push("no writable code".to_owned());
        }
        if !missing.is_empty() {
            words.push(format!("this kernel cannot confine its {}", missing.join(", ")));
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Kernel = Kernel { files: true, tcp: true, scopes: true, syscalls: true, new_code: true };

    #[test]
    fn what_a_kernel_lacks_is_named_and_with_required_nothing_runs() {
        // A Linux 6.1 with Landlock.
        let old = Kernel { tcp: false, scopes: false, new_code: false, ..ALL };
        let wanted = Confinement::default();
        let (layers, missing) = Layers::choose(&wanted, old);
        assert!(layers.files && layers.syscalls && !layers.tcp && !layers.scopes, "{layers:?}");
        assert!(layers.code_by_filter && !layers.code_by_switch, "{layers:?}");
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(layers.words(&wanted, &missing).contains("cannot confine its TCP ports"), "{missing:?}");
        let required = Confinement { mode: Mode::Required, ..wanted.clone() };
        let refused = Layers::require(&required, old).unwrap_err();
        assert!(refused.text().contains("Linux 6.7") && refused.text().contains(SETTING), "{refused}");
        assert!(Layers::require(&required, ALL).unwrap().1.is_empty());
        // What the operator took away is not missing.
        let open = Confinement { connect: Connect::Anywhere, landlock: false, jit: true, ..required };
        assert!(Layers::require(&open, old).unwrap().1.is_empty());
        let off = Confinement { mode: Mode::Off, ..Confinement::default() };
        assert_eq!(Layers::choose(&off, Kernel::default()), (Layers::default(), Vec::new()));
    }
}
