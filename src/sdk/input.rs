//! The line on stdin. Read once, at the start, byte by byte as far as its end: some hosts leave the pipe open.

use std::{
    io::IsTerminal,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read as read_some},
};

use crate::{
    error::{Context, Error, Kind, Result},
    wire::host_data::{HostData, MAX_LINE_BYTES},
};

/// How long the host may take to write the line. It writes it right after the start; a provider that waits longer was not
/// started by a host.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes asked for at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Reads the host data from `stdin`.
///
/// # Errors
/// Nobody writes it, it is too long, or it cannot be read.
pub fn read(stdin: &(impl AsFd + IsTerminal)) -> Result<HostData> {
    if stdin.is_terminal() {
        return Err(Error::usage(
            "this is a capability provider: a host starts it from its archive and tells it on stdin what it needs to know; \
             `latticed` is such a host",
        ));
    }
    HostData::from_line(&line(stdin, Instant::now() + PATIENCE)?)
}

fn line(stdin: &impl AsFd, deadline: Instant) -> Result<String> {
    let reading = "cannot read the host data from stdin";
    let (mut line, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context(Kind::Internal, reading)?;
        match poll(&mut [PollFd::new(stdin, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Error::timeout(format!("{reading}: no line came within {} s", PATIENCE.as_secs()))),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(cause) => return Err(cause).context(Kind::Unavailable, reading),
        }
        let count = match read_some(stdin, &mut piece) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(cause) => return Err(cause).context(Kind::Unavailable, reading),
        };
        let end = piece[..count].iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(count)]);
        if line.len() > MAX_LINE_BYTES {
            return Err(Error::limit(format!("{reading}: it is longer than {MAX_LINE_BYTES} bytes")));
        }
        if end.is_some() || count == 0 {
            return String::from_utf8(line).context(Kind::Invalid, reading);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, thread};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_line_is_read_without_waiting_for_the_end_of_the_pipe() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let long = "x".repeat(3 * PIECE_BYTES);
        let (sent, kept) = (format!("{long}\nmore"), writer.try_clone().unwrap());
        let writing = thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
        assert_eq!(line(&reader, soon()).unwrap(), long);
        writing.join().unwrap();
        drop(kept);
    }

    #[test]
    fn the_end_of_the_pipe_ends_a_line_too() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"abc").unwrap();
        drop(writer);
        assert_eq!(line(&reader, soon()).unwrap(), "abc");
        assert_eq!(line(&reader, soon()).unwrap(), "");
    }

    #[test]
    fn silence_and_too_much_are_refused() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(line(&reader, Instant::now()).unwrap_err().kind(), Kind::Timeout);
        let writing = thread::spawn(move || writer.write_all(&vec![b'x'; MAX_LINE_BYTES + 1]));
        assert_eq!(line(&reader, soon()).unwrap_err().kind(), Kind::Limit);
        drop(reader);
        let _ = writing.join().unwrap();
    }
}
