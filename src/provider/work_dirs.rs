//! The working directories of providers.
//!
//! What a provider keeps there may exist nowhere else, and people stop one to start another version of it: so a directory is not
//! removed with its provider's stop, but set aside, is found again by the next start, and goes when the host starts anew without
//! that. Only what a stop has set aside is ever removed. Everything here blocks.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::binaries::make_directory;
use crate::{host::ProviderName, log};

/// Begins the name of a directory that was set aside; no key does.
const ASIDE: &str = ".stopped-";

/// Where they are.
#[derive(Clone)]
pub struct WorkDirs(PathBuf);

impl WorkDirs {
    /// In `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The directory of the provider `name`, which is made if it was not there.
    ///
    /// # Errors
    /// The disk failed.
    pub fn make(&self, name: &ProviderName) -> io::Result<PathBuf> {
        let place = self.of("", name);
        if fs::symlink_metadata(&place).is_err() {
            match fs::rename(self.of(ASIDE, name), &place) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        make_directory(&place)?;
        Ok(place)
    }

    /// The provider `name` was stopped for good: its directory is set aside, or removed where it is empty.
    pub fn leave(&self, name: &ProviderName) {
        let place = self.of("", name);
        if fs::remove_dir(&place).is_ok() {
            return;
        }
        match fs::rename(&place, self.of(ASIDE, name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot set {} aside: {cause}", place.display());
            }
            _ => {}
        }
    }

    /// Removes what was set aside and is not `wanted` again.
    pub fn tidy(&self, wanted: &BTreeSet<ProviderName>) {
        let wanted: BTreeSet<PathBuf> = wanted.iter().map(|name| self.of(ASIDE, name)).collect();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(ASIDE) && !wanted.contains(&entry.path()) {
                remove(&entry.path());
            }
        }
    }

    fn of(&self, before: &str, (key, link_name): &ProviderName) -> PathBuf {
        self.0.join(format!("{before}{key}-{link_name}"))
    }
}

fn remove(place: &Path) {
    // Follows no link out of it, whatever the provider has put there.
    if let Err(cause) = fs::remove_dir_all(place) {
        log::warn!("cannot remove {}, which a stopped provider has left: {cause}", place.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_keeps_outlives_a_stop_and_goes_with_the_next_start_of_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let (work_dirs, name) = (WorkDirs::new(folder.path().join("run")), ("VTEST".to_owned(), "default".to_owned()));
        let other = ("VOTHER".to_owned(), "default".to_owned());
        let listed = || fs::read_dir(folder.path().join("run")).unwrap().count();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        let none = BTreeSet::new();
        work_dirs.tidy(&none);
        work_dirs.leave(&name);

        let place = work_dirs.make(&name).unwrap();
        assert_eq!(work_dirs.make(&name).unwrap(), place);
        work_dirs.leave(&name);
        assert_eq!(listed(), 0);

        fs::write(work_dirs.make(&name).unwrap().join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, place.join("link")).unwrap();
        fs::write(work_dirs.make(&other).unwrap().join("file"), "runs").unwrap();
        work_dirs.leave(&name);
        assert!(!place.exists());
        assert_eq!(fs::read(work_dirs.make(&name).unwrap().join("file")).unwrap(), b"kept");
        // Nobody stopped them.
        work_dirs.tidy(&none);
        assert_eq!(listed(), 2);
        work_dirs.leave(&name);
        // Wanted again, and not started yet.
        work_dirs.tidy(&BTreeSet::from([name.clone()]));
        assert_eq!(listed(), 2);
        work_dirs.tidy(&none);
        assert_eq!(listed(), 1);
        assert!(outside.join("file").exists());
        assert_eq!(fs::read_dir(work_dirs.make(&name).unwrap()).unwrap().count(), 0);
    }
}
