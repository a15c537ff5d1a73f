//! Files that hold a secret: read only where nobody else can read them.
//!
//! Every reader of a seed, credentials or key file asks here first. It never reads the file itself.

use std::{fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use crate::error::{Error, Result};

/// Refuses the secret file at `path` if others may read it. Its group may: a packaged file belongs to root and the
/// service's group. Blocks shortly.
///
/// # Errors
/// `Denied`: others may read or write it; the text names the remedy. `Config`: it is not there, or is no file.
pub fn check(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path)
        .map_err(|cause| Error::config(format!("cannot read the secret file {}: {cause}", path.display())))?;
    judge(path, &metadata)
}

fn judge(path: &Path, metadata: &Metadata) -> Result<()> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o006 != 0 {
        return Err(Error::denied(format!(
            "the secret file {0} is open to every user of this machine (mode {mode:04o}) and is not used: run \
             `chmod o= {0}`, and take it for known if others had access",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_file_others_may_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("seed");
        fs::write(&path, "SC").expect("written");
        for (mode, fine) in
            [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o604, false), (0o602, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            match check(&path) {
                Ok(()) => assert!(fine, "{mode:o}"),
                Err(error) => {
                    assert!(!fine, "{mode:o}");
                    assert_eq!(error.kind(), Kind::Denied);
                    assert!(error.text().contains("chmod o= "), "{error}");
                }
            }
        }
        assert_eq!(check(&folder.path().join("none")).expect_err("missing").kind(), Kind::Config);
    }
}
