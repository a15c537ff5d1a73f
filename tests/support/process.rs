//! What the kernel says of a process: memory, processor time, wake-ups, bytes written.

use std::{fs, io, time::Duration};

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident set size.
    pub rss: u64,
    /// Proportional set size: shared pages divided among those who share them.
    pub pss: u64,
    /// Pages that no file stands behind.
    pub anonymous: u64,
    /// Pages that are this process's alone and cannot be dropped.
    pub private_dirty: u64,
}

/// Memory of the process `pid`.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| number_after(&text, name).map(|kibibytes| kibibytes * 1024);
    Ok(Memory {
        rss: field("Rss:")?,
        pss: field("Pss:")?,
        anonymous: field("Anonymous:")?,
        private_dirty: field("Private_Dirty:")?,
    })
}

/// Processor time of all threads of `pid` that live.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for_each_thread(pid, |folder| {
        let text = fs::read_to_string(format!("{folder}/schedstat"))?;
        nanoseconds += number_after(&text, "")?;
        Ok(())
    })?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// How often threads of `pid` went to sleep so far: each time is a wake-up.
pub fn wake_ups(pid: u32) -> io::Result<u64> {
    let mut switches = 0;
    for_each_thread(pid, |folder| {
        switches += number_after(&fs::read_to_string(format!("{folder}/status"))?, "\nvoluntary_ctxt_switches:")?;
        Ok(())
    })?;
    Ok(switches)
}

/// Bytes `pid` sent towards a disk so far.
pub fn bytes_written(pid: u32) -> io::Result<u64> {
    number_after(&fs::read_to_string(format!("/proc/{pid}/io"))?, "\nwrite_bytes:")
}

/// Threads of `pid`.
pub fn threads(pid: u32) -> io::Result<u64> {
    let mut count = 0;
    for_each_thread(pid, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn for_each_thread(pid: u32, mut look: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match look(&thread?.path().to_string_lossy()) {
            // It ended between the listing and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn number_after(text: &str, name: &str) -> io::Result<u64> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in {text:?}"));
    let rest = &text[text.find(name).ok_or_else(odd)? + name.len()..];
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).ok_or_else(odd)
}
