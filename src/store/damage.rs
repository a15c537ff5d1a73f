//! What was found wrong with the state directory, and the folder where damaged bytes are set aside.
//!
//! Nothing damaged is dropped without a word: each piece is copied to `damaged/`, with where it was and why, before its
//! place is used again, and reported to whoever opened the store.

use std::{fmt, io, sync::Arc};

use super::disk::Disk;
use crate::error::Result;

/// The folder in the state directory.
pub const DAMAGED_DIR: &str = "damaged";

/// Files kept in [`DAMAGED_DIR`]. Each is at most a segment or a blob long; a card that damages more than this many is
/// beyond reading one by one. The oldest (lowest name) makes room for the newest.
const FILES_KEPT: usize = 64;

/// Which kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The last record is incomplete: it was being written when power went and was never acknowledged, or it was damaged
    /// afterwards. The two cannot be told apart.
    Tail,
    /// A record, segment or blob that was complete once is not any more. Its changes are lost; those after it are not.
    Record,
    /// The state directory cannot be written: what is there can be read, changes fail.
    ReadOnly,
}

/// One thing that is wrong with the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which kind of thing.
    pub kind: DamageKind,
    /// The file, relative to the state directory; empty when it is about the whole directory.
    pub file: String,
    /// Where in the file, bytes.
    pub offset: u64,
    /// How many bytes are affected.
    pub bytes: u64,
    /// What was seen.
    pub reason: String,
    /// Where the bytes were copied to, relative to the state directory; `None` when that was not possible.
    pub set_aside: Option<String>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "{} at byte {} ({} bytes): {}", self.file, self.offset, self.bytes, self.reason)?;
        match &self.set_aside {
            Some(place) => write!(f, "; the bytes are kept in {place}"),
            None => f.write_str("; the bytes could not be set aside and are left where they are if there is anything"),
        }
    }
}

/// Copies `bytes` to `damaged/NAME.bin` behind a few lines that say what they are. Answers the new file's name.
///
/// A file of that name is left as it is: it holds the same bytes, set aside at an earlier start.
pub(super) fn set_aside(disk: &Arc<dyn Disk>, name: &str, damage: &Damage, bytes: &[u8]) -> io::Result<String> {
    let place = format!("{DAMAGED_DIR}/{name}.bin");
    make_room(disk.as_ref())?;
    let file = match disk.create(&place) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(place),
        other => other?,
    };
    let mut content = format!(
        "latticed set these bytes aside\nfile: {}\noffset: {}\nlength: {}\nreason: {}\n\n",
        damage.file, damage.offset, damage.bytes, damage.reason
    )
    .into_bytes();
    content.extend_from_slice(bytes);
    let written = file.write_at(0, &content).and_then(|()| file.sync()).and_then(|()| disk.sync_dir(DAMAGED_DIR));
    if let Err(cause) = written {
        // Half a copy would pass for a whole one at the next start.
        let _ = disk.remove(&place);
        return Err(cause);
    }
    Ok(place)
}

/// Moves the whole file `name` to `damaged/`. Answers its new name.
pub(super) fn move_aside(disk: &Arc<dyn Disk>, name: &str) -> io::Result<String> {
    make_room(disk.as_ref())?;
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
    let place = format!("{DAMAGED_DIR}/{base}");
    disk.rename(name, &place)?;
    disk.sync_dir(DAMAGED_DIR)?;
    disk.sync_dir(folder)?;
    Ok(place)
}

fn make_room(disk: &dyn Disk) -> io::Result<()> {
    disk.make_dir(DAMAGED_DIR)?;
    let mut names = disk.list(DAMAGED_DIR)?;
    if names.len() >= FILES_KEPT {
        names.sort_unstable();
        for name in &names[..=names.len() - FILES_KEPT] {
            disk.remove(&format!("{DAMAGED_DIR}/{name}"))?;
        }
    }
    Ok(())
}

/// The report of a state directory that cannot be written, if it cannot.
pub(super) fn read_only(disk: &dyn Disk) -> Option<Damage> {
    let cause = disk.writable().err()?;
    Some(Damage {
        kind: DamageKind::ReadOnly,
        file: String::new(),
        offset: 0,
        bytes: 0,
        reason: format!(
            "the state directory {} cannot be written ({cause}): what is there is used, every change will be refused; \
             mount it read-write and give it to the user this host runs as",
            disk.place()
        ),
        set_aside: None,
    })
}

/// A finding on its way to a [`Damage`], with the bytes to keep.
pub(super) type Finding = (Damage, Vec<u8>);

/// The outcome of opening: the thing, and everything found wrong with it.
pub(super) type Opened<T> = Result<(T, Vec<Damage>)>;
