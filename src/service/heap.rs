//! How the C library's allocator keeps and returns memory.
//!
//! Called once at the start of the process ([`configure`]) and whenever the host falls idle ([`give_back`]). It changes
//! when memory goes back to the system, never what is allocated.
//!
//! # Why
//! An instance of a guest allocates its linear memory in one piece, 1.1 MiB for a default Rust actor. glibc maps such a
//! block afresh for every instance and unmaps it after, so that each invocation faults in 272 pages again: half of the
//! cost of an invocation. With the thresholds raised the block is kept between invocations; when all is quiet it is
//! given back together with everything else that is free.
//!
//! # Safety
//! The two functions called here take plain numbers and no pointers. `mallopt` changes parameters of the allocator under
//! its own lock and answers 0 for values it does not know. `malloc_trim` returns free pages to the system under the same
//! lock and does not touch memory in use. Both may be called at any time from any thread.

#![allow(unsafe_code)]

/// Size above which a block gets a mapping of its own, bytes. 4 MiB is above the memory of ordinary guests and below that of
/// hogs, whose memory goes back at once. glibc takes at most 32 MiB on 64-bit and 512 KiB on 32-bit systems.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
const MMAP_THRESHOLD_BYTES: libc::c_int = 4 * 1024 * 1024;
/// See above; the largest value a 32-bit glibc takes.
#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
const MMAP_THRESHOLD_BYTES: libc::c_int = 512 * 1024;

/// Free memory at the end of the heap that is kept while the host is busy, bytes. 32 MiB holds the memories of the 16
/// instances that may run at once, and their stacks. With 8 MiB eight connections to one actor were enough to give memory
/// back and fault it in again at every request, which cost six times what the request itself did.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD_BYTES: libc::c_int = 32 * 1024 * 1024;

/// Heaps among which threads are spread. One saves memory that would lie idle in several; the few threads of this
/// process rarely allocate at the same moment, and small blocks come from caches of each thread anyway.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// Sets the allocator up. Call it before threads are started.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only, see the file's header.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
    }
}

/// Gives free memory back to the system. Takes up to some milliseconds where much is free.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number only, see the file's header.
    unsafe {
        libc::malloc_trim(0);
    }
}
