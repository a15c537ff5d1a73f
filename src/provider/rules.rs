//! What the operator allows or forbids single providers: `memory=64M`, `V…:write=/srv/files`. Pure.

use std::path::PathBuf;

use super::{
    confine::{Confinement, Connect},
    user::User,
};
use crate::error::{Error, Result};

/// Rules, in the order they were written; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `V…`, or `None` for all.
    provider: Option<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Memory(u64),
    Files(u64),
    Processes(u64),
    Disk(u64),
    Inodes(u64),
    Landlock(bool),
    Seccomp(bool),
    Jit(bool),
    Connect(Option<u16>),
    Read(PathBuf),
    Write(PathBuf),
    User(User),
}

impl Rules {
    /// The name of the setting, for errors.
    pub const SETTING: &str = "WASMCLOUD_PROVIDER_RULES";

    /// Reads rules of the form `NAME=VALUE` or `V…:NAME=VALUE`.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config), naming the rule and what is understood.
    pub fn parse(rules: &[String]) -> Result<Self> {
        rules.iter().map(|text| Rule::parse(text)).collect::<Result<_>>().map(Self)
    }

    /// What `provider` may use and reach, where `usual` is what all may.
    pub fn apply(&self, provider: &str, usual: &Confinement) -> Confinement {
        let mut confinement = usual.clone();
        let own = |rule: &&Rule| rule.provider.as_deref().is_none_or(|only| only == provider);
        for rule in self.0.iter().filter(own) {
            match &rule.change {
                Change::Memory(bytes) => confinement.memory_bytes = *bytes,
                Change::Files(count) => confinement.files = *count,
                Change::Processes(count) => confinement.processes = *count,
                Change::Disk(bytes) => confinement.disk_bytes = *bytes,
                Change::Inodes(count) => confinement.disk_files = *count,
                Change::Landlock(on) => confinement.landlock = *on,
                Change::Seccomp(on) => confinement.seccomp = *on,
                Change::Jit(on) => confinement.jit = *on,
                Change::Connect(Some(port)) => confinement.connect.allow(*port),
                Change::Connect(None) => confinement.connect = Connect::Anywhere,
                Change::Read(path) => confinement.read.push(path.clone()),
                Change::Write(path) => confinement.write.push(path.clone()),
                Change::User(user) => confinement.user = Some(*user),
            }
        }
        confinement
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::config(format!(
                "{}: the rule '{text}' cannot be used: {why}; write NAME=VALUE or V…:NAME=VALUE with a name of memory, \
                 files, processes, disk, inodes, connect, landlock, seccomp, jit, read, write, user",
                Rules::SETTING
            ))
        };
        let (name, value) = text.split_once('=').ok_or_else(|| refused("there is no ="))?;
        let (provider, name) = match name.split_once(':') {
            Some((provider, name)) => (Some(provider.trim().to_owned()), name.trim()),
            None => (None, name.trim()),
        };
        let value = value.trim();
        let count = || size(value).ok_or_else(|| refused("the value is no number"));
        let path = || match value.starts_with('/') {
            true => Ok(PathBuf::from(value)),
            false => Err(refused("the value is no full path")),
        };
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(refused("the value is neither on nor off")),
        };
        let change = match name {
            "memory" => Change::Memory(count()?),
            "files" => Change::Files(count()?),
            "processes" => Change::Processes(count()?),
            "disk" => Change::Disk(count()?),
            "inodes" => Change::Inodes(count()?),
            "landlock" => Change::Landlock(switch()?),
            "seccomp" => Change::Seccomp(switch()?),
            "jit" => Change::Jit(switch()?),
            "connect" if value == "any" => Change::Connect(None),
            "connect" => {
                Change::Connect(Some(value.parse().map_err(|_| refused("the value is neither a port nor any"))?))
            }
            "read" => Change::Read(path()?),
            "write" => Change::Write(path()?),
            "user" => Change::User(
                User::find(value)
                    .ok_or_else(|| refused("the value names no user, by name or number, other than root"))?,
            ),
            _ => return Err(refused("there is no rule of that name")),
        };
        Ok(Self { provider, change })
    }
}

/// `4096`, `64K`, `512M`, `1G`.
fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Result<Rules> {
        Rules::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn rules_hold_for_one_provider_or_all_and_the_last_wins() {
        let rules = rules(&[
            "connect=6379",
            "V1:connect=any",
            "V1:jit=on",
            "V2:seccomp=off",
            "disk=1M",
            "V2:inodes=7",
            "memory=64M",
            "V1:memory=1G",
            "V1:write=/srv/a:b",
            "files=9",
            "V2:landlock=off",
        ])
        .unwrap();
        let usual = Confinement::default();
        let (one, two) = (rules.apply("V1", &usual), rules.apply("V2", &usual));
        assert_eq!((one.memory_bytes, two.memory_bytes, one.files), (1 << 30, 64 << 20, 9));
        assert_eq!((one.write, two.write.len()), (vec![PathBuf::from("/srv/a:b")], 0));
        assert_eq!((one.landlock, two.landlock), (true, false));
        assert_eq!((one.connect, two.connect), (Connect::Anywhere, Connect::Ports(vec![6379])));
        assert_eq!((one.disk_bytes, two.disk_files), (1 << 20, 7));
        assert_eq!((one.jit, two.jit, one.seccomp, two.seccomp), (true, false, true, false));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for bad in [
            "memory",
            "memory=x",
            "speed=1",
            "write=relative",
            "landlock=maybe",
            "connect=x",
            "connect=70000",
            "jit=1",
            "V1:=1",
        ] {
            let refused = rules(&[bad]).unwrap_err();
            assert!(refused.text().contains(bad) && refused.text().contains(Rules::SETTING), "{refused}");
        }
    }
}
