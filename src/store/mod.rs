//! What survives a power cut: host identity, desired state, links, key-values, and larger blobs.
//!
//! One directory, one log. [`Store`] keeps small records in tables and makes changes atomic and durable; [`Blobs`] keeps
//! larger things in files named by their digest. Called by `host`, by the key-value capability and at start by `cli`.
//!
//! # Layout
//!
//! * [`Disk`]: every touch of the directory; [`RealDisk`] is the real one, [`FaultDisk`] the test tool.
//! * `format`: the bytes; `scan`: what a segment holds, damaged or not; `open`: from files to an index.
//! * `state`: the index and views of it; `log`: the queue of changes; `writer`: appending; `clean`: keeping it short.
//! * `damage`: what was wrong and where its bytes went; `blobs`; `incoming` and `partial`: blobs on their way, and what
//!   is left of those that were cut off; `identity`: the host's seed.
//!
//! # What it promises
//!
//! * A change is acknowledged only when it is durable, and is there entirely or not at all.
//! * Damage costs the damaged record (the changes that were written in one go), nothing else: it is reported, its bytes
//!   go to `damaged/`, and everything before and after it is used. A key whose newest record is damaged shows its value
//!   before that, if the log still has it: what a damaged record was about is not known for sure.
//! * A full disk refuses changes and loses nothing; a read-only one can be read.
//! * With nothing to change, nothing is written and no thread of the store exists.
//!
//! It never trusts a byte from the disk without a checksum, never overwrites one that counts, and never starts over
//! because something is wrong.
//!
//! # Cost
//!
//! A commit is one write and one `fdatasync`; commits that wait for the same sync share both. A frame is 24 bytes, a
//! change 3 bytes, its key and its value; the medium writes a page (4136 bytes per increment, measured, the zeros written
//! ahead included). A key in memory is its length plus about 90 bytes. Opening reads the log once: 10 000 keys of 100
//! bytes took 29 ms and 1.3 MB on a busy x86 core, 100 000 took 336 ms and 10.4 MB.
//!
//! # Rejected designs
//!
//! * **fjall 3.1** (LSM tree), measured beside this log, 300 synced commits of 100 bytes, one worker: binary +586 KB
//!   (here 0 beyond our own code), private dirty memory +136 KiB, one more thread (asleep at idle), 4246 bytes written
//!   per commit (here 4.1 KiB), a 64 MiB sparse journal. Of 150 single flipped bits in its journal 121 made it *refuse to
//!   open* and 16 made it open with most of 1000 keys *silently gone*; a flipped bit in its version file, `current` or
//!   newest manifest refuses to open; one in a table makes reads fail with no way around the bad block. After one full
//!   disk every write fails (`Poisoned`) until the process starts again, room or not. A read-only directory cannot be
//!   opened. Its writes go to `std::fs` in a dozen places, so no test can stop after each. Torn tails it handles well.
//! * **SQLite, redb, sled**: 0.6–1.0 MB of binary, 8.5 or 28 KB per commit, or 22 MB of memory; not tried with damage,
//!   because none of them is smaller or gentler to the card.
//! * **A snapshot and a log**: rewrites everything that is kept each time the log is full; cleaning the oldest segment
//!   writes at most as much as has become garbage.
//! * **One frame per commit**: a group in one frame saves 24 bytes for each and can never be half there in an order that
//!   no reader saw. The price is that damage takes the whole group.
//! * **Padding each commit to a sector of its own**, so that a torn sector cannot take older commits along: flash
//!   translation layers write pages whole, and the log would be ten times as long and cleaned as much more often.

mod blobs;
mod clean;
mod damage;
mod disk;
mod fault_disk;
mod format;
mod identity;
mod incoming;
mod log;
mod open;
mod partial;
mod real_disk;
mod scan;
mod state;
mod table;
mod writer;

pub use blobs::{BLOBS_DIR, BlobReader, Blobs, Digest, MAX_BLOB_BYTES};
pub use damage::{DAMAGED_DIR, Damage, DamageKind};
pub use disk::{Disk, DiskFile, Lock};
#[doc(hidden)]
pub use fault_disk::FaultDisk;
pub use incoming::{Incoming, Progress};
pub use log::{DEFAULT_MAX_BYTES, DEFAULT_MAX_KEYS, DEFAULT_SEGMENT_BYTES, MAX_COMMIT_BYTES, Settings, Store};
pub use partial::Unfinished;
pub use real_disk::RealDisk;
pub use state::{Transaction, Usage, View};
pub use table::{Batch, Table};
