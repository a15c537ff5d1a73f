//! The user that a provider runs as, and what is left of root's power where it is root.
//!
//! A host that runs as root may give a provider a user of its own: the rule `user=NAME` or `user=NUMBER`. Files of the host are
//! then out of its reach even without Landlock, and signals, limits and priorities of the host without a filter. A host that
//! is an ordinary user, as the installed service is, cannot change users; its providers run as it does.
//!
//! A provider that stays root keeps one of root's capabilities, to listen on ports below 1024: nothing that it was started for
//! needs another.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chownat, fchown, openat, statat},
    io::Errno,
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error, Kind, Result},
    users,
};

/// How directories are opened that may hold what a provider put there.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A user, and its first group; it has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its number.
    pub id: u32,
    /// The number of its group.
    pub group: u32,
}

impl User {
    /// The user that `text` names, by a name in `/etc/passwd` or by a number, whose group has the same number where the file
    /// does not know it. Nothing for an unknown name and for root, who is nobody's own.
    pub fn find(text: &str) -> Option<Self> {
        let listed = users::find(text).map(|user| Self { id: user.id, group: user.group });
        // The highest number stands for "no change" in the kernel's calls.
        let user = listed.or_else(|| text.parse().ok().map(|id| Self { id, group: id }));
        user.filter(|user| user.id != 0 && user.id != u32::MAX)
    }

    /// Makes `directory` and what is in it this user's, and lets it pass through to there and to `binary`, as far as the
    /// directories are below `state`, which is the host's. Blocks.
    ///
    /// # Errors
    /// [`Kind::Config`]: this host may not change users, or the user cannot pass through a directory that is not the host's.
    /// [`Kind::Storage`]: the disk failed.
    pub fn prepare(self, binary: &Path, directory: &Path, state: &Path) -> Result<()> {
        let own = geteuid();
        if !own.is_root() {
            return Err(Error::config(format!(
                "the rule user={} for this provider needs a host that runs as root, and this one runs as user {}: remove the \
                 rule from {}",
                self.id,
                own.as_raw(),
                super::rules::Rules::SETTING
            )));
        }
        let failed = |path: &Path| format!("cannot give {} to user {}", path.display(), self.id);
        for folder in directory.ancestors().skip(1).chain(binary.ancestors().skip(1)) {
            let metadata = fs::metadata(folder).context(Kind::Storage, failed(folder))?;
            if self.may_pass(&metadata) {
                continue;
            }
            if !folder.starts_with(state) || metadata.uid() != own.as_raw() {
                return Err(Error::config(format!(
                    "user {} of this provider cannot pass through {}: allow it with `chmod o+x`, or remove its rule from {}",
                    self.id,
                    folder.display(),
                    super::rules::Rules::SETTING
                )));
            }
            add_mode(folder, &metadata, 0o001).context(Kind::Storage, failed(folder))?;
        }
        let metadata = fs::metadata(binary).context(Kind::Storage, failed(binary))?;
        add_mode(binary, &metadata, 0o005).context(Kind::Storage, failed(binary))?;
        self.take(directory).context(Kind::Storage, failed(directory))
    }

    /// Whether it may pass through the directory that `metadata` is of.
    fn may_pass(self, metadata: &fs::Metadata) -> bool {
        let shift = match () {
            () if metadata.uid() == self.id => 6,
            () if metadata.gid() == self.group => 3,
            () => 0,
        };
        metadata.mode() >> shift & 0o1 != 0
    }

    /// Makes the directory `path` and everything below its own. Follows no link, also not one that takes a directory's place
    /// meanwhile, and leaves alone what has a second name somewhere else.
    fn take(self, path: &Path) -> io::Result<()> {
        let directory = openat(CWD, path, DIRECTORY, Mode::empty())?;
        fchown(&directory, Some(Uid::from_raw(self.id)), Some(Gid::from_raw(self.group)))?;
        self.take_content(&directory)
    }

    fn take_content(self, directory: &OwnedFd) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let status = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                let below = openat(directory, name, DIRECTORY, Mode::empty())?;
                fchown(&below, Some(user), Some(group))?;
                self.take_content(&below)?;
            } else if status.st_nlink == 1 {
                chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }

    /// Makes this thread, which must be the process' only one, this user's, for ever.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn become_it(self) -> Result<(), Errno> {
        let (user, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)
    }
}

fn add_mode(path: &Path, metadata: &fs::Metadata, more: u32) -> io::Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & more == more { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | more)) }
}

/// Takes root's capabilities from this process and from what it will execute, but for [`CapabilitySet::NET_BIND_SERVICE`].
/// Who has none keeps none.
///
/// # Errors
/// The kernel refuses.
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    if !geteuid().is_root() {
        return Ok(());
    }
    match clear_ambient_capability_set() {
        // Linux before 4.3 has none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(cause) => return Err(cause),
    }
    for capability in CapabilitySet::all().iter_names().map(|(_, one)| one) {
        if capability == CapabilitySet::NET_BIND_SERVICE {
            continue;
        }
        // What this kernel does not know it answers with `EINVAL`.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number_and_root_is_none() {
        let daemon = User::find("daemon").expect("every system has it");
        assert_eq!(User::find(&daemon.id.to_string()), Some(daemon));
        assert_eq!(User::find("61184"), Some(User { id: 61184, group: 61184 }));
        for bad in ["root", "0", "", "nobody-here", "-1", "4294967295"] {
            assert_eq!(User::find(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_has_a_second_name_elsewhere_is_left_to_its_owner() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (secret, place) = (folder.path().join("secret"), folder.path().join("place"));
        fs::create_dir(&place).unwrap();
        fs::write(&secret, "x").unwrap();
        fs::write(place.join("own"), "x").unwrap();
        fs::hard_link(&secret, place.join("hard")).unwrap();
        std::os::unix::fs::symlink(&secret, place.join("soft")).unwrap();
        User { id: 61184, group: 61184 }.take(&place).unwrap();
        assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
        assert_eq!(fs::metadata(place.join("own")).unwrap().uid(), 61184);
    }
}
