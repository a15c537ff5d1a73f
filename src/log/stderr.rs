//! The sink for people and the journal: stderr, without ever waiting long for whoever reads it.
//!
//! A terminal stopped with Ctrl-S, a pager, or a journal that hangs would otherwise stop the whole host at its next
//! line. So the sink writes without blocking: a pipe or terminal through a file description of its own (to set
//! O_NONBLOCK on the inherited one would change it for the shell too), a socket by a flag of each send. Where stderr
//! is full the sink waits once for [`WAIT`]; from then on lines are counted and dropped until there is room, and one
//! line says how many were lost. A file is simply written.
//!
//! Rejected: a thread with a queue. It costs a stack and a wake-up for each line, and lines die with the process.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat, open},
    net::{SendFlags, send},
};

use super::{format::Format, line::LINE_BYTES};

/// How long one line may wait for a reader that has fallen behind, once until the reader catches up. Ten times what a
/// terminal needs for a screenful, and too short for anybody to miss a heartbeat.
pub(super) const WAIT: Duration = Duration::from_millis(20);

/// How bytes get to stderr without blocking.
enum Road {
    /// A regular file, or something that could not be opened again: written as it is, after a look whether it is ready.
    Inherited,
    /// A description of our own with O_NONBLOCK.
    Own(OwnedFd),
    /// The same description under another number; each send carries MSG_DONTWAIT.
    Socket(OwnedFd),
}

/// The sink's state.
pub(super) struct Stderr {
    format: Format,
    road: Road,
    /// Whether the last line did not fit, so that the next does not wait for a reader again.
    full: bool,
    /// Lines dropped since the reader stopped.
    lost: u64,
    /// The rest of a line of which a terminal took only the beginning.
    rest: heapless::Vec<u8, LINE_BYTES>,
}

impl Stderr {
    pub(super) const fn new() -> Self {
        Self {
            format: Format::Plain { colour: false },
            road: Road::Inherited,
            full: false,
            lost: 0,
            rest: heapless::Vec::new(),
        }
    }

    /// Looks at what stderr is and decides form and road.
    pub(super) fn open(&mut self, structured: bool) {
        let stderr = io::stderr();
        let environment = |name: &str| std::env::var(name).unwrap_or_default();
        self.format = if structured {
            Format::Structured
        } else if is_journal(stderr.as_fd(), &environment("JOURNAL_STREAM")) {
            Format::Journal
        } else {
            let terminal = stderr.is_terminal();
            let colour = terminal && environment("NO_COLOR").is_empty() && environment("TERM") != "dumb";
            Format::Plain { colour }
        };
        self.road = Road::to(stderr.as_fd());
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes one line, or counts it as lost.
    pub(super) fn write(&mut self, line: &[u8]) {
        let wait = if self.full { Duration::ZERO } else { WAIT };
        if !(self.finish_rest(wait) && self.report_lost() && self.put(line, wait)) {
            self.full = true;
            self.lost += 1;
        }
    }

    /// Writes what is left over, if the reader is back.
    pub(super) fn settle(&mut self) {
        if self.finish_rest(Duration::ZERO) {
            self.report_lost();
        }
    }

    /// Whether nothing of an earlier line is left to write.
    fn finish_rest(&mut self, wait: Duration) -> bool {
        if self.rest.is_empty() {
            return true;
        }
        let rest = std::mem::take(&mut self.rest);
        self.put(&rest, wait) && self.rest.is_empty()
    }

    /// Whether there is nothing to say about lost lines any more.
    fn report_lost(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let lost = self.lost;
        let text = format_args!("lost {lost} lines because stderr was not read");
        let event = super::Event { level: super::Level::Warn, target: module_path!(), text, fields: &[], guest: false };
        let line = self.format.render(&event, std::time::SystemTime::now(), |_, _| false);
        let written = self.put(line.as_bytes(), Duration::ZERO);
        if written {
            self.lost = 0;
        }
        written
    }

    /// Whether `line` was taken; the rest of one taken in part is kept for later.
    fn put(&mut self, line: &[u8], wait: Duration) -> bool {
        let mut waited = false;
        let mut written = 0;
        loop {
            match self.road.write(&line[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited && !wait.is_zero() => {
                    waited = true;
                    self.road.wait(wait);
                }
                // Nobody reads any more, or the disk is full: there is no one to tell.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return true,
                Err(_) if written == 0 => return false,
                Err(_) => {
                    self.full = true;
                    self.rest.clear();
                    // A line is never longer than the buffer for its rest.
                    let _ = self.rest.extend_from_slice(&line[written..]);
                    return true;
                }
            }
            if written == line.len() {
                self.full = false;
                return true;
            }
        }
    }
}

impl Road {
    fn to(stderr: BorrowedFd<'_>) -> Self {
        match fstat(stderr).map(|status| FileType::from_raw_mode(status.st_mode)) {
            Ok(FileType::Socket) => stderr.try_clone_to_owned().map_or(Road::Inherited, Road::Socket),
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let path = format!("/proc/self/fd/{}", stderr.as_raw_fd());
                open(path, flags, Mode::empty()).map_or(Road::Inherited, Road::Own)
            }
            _ => Road::Inherited,
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Road::Own(own) => Ok(rustix::io::write(own, bytes)?),
            Road::Socket(socket) => Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
            Road::Inherited => {
                if !self.ready(Duration::ZERO) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                io::stderr().write(bytes)
            }
        }
    }

    /// Waits until there may be room, or `wait` is over.
    fn wait(&self, wait: Duration) {
        self.ready(wait);
    }

    fn ready(&self, wait: Duration) -> bool {
        let stderr = io::stderr();
        let fd = match self {
            Road::Own(own) | Road::Socket(own) => own.as_fd(),
            Road::Inherited => stderr.as_fd(),
        };
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&wait)).is_ok_and(|ready| ready > 0)
    }
}

/// Whether `stderr` is the stream that systemd describes in `JOURNAL_STREAM` (`device:inode`).
fn is_journal(stderr: BorrowedFd<'_>, journal_stream: &str) -> bool {
    let Some((device, inode)) = journal_stream.split_once(':') else { return false };
    let Ok(status) = fstat(stderr) else { return false };
    // The width of the kernel's numbers differs between architectures; their decimal form does not.
    status.st_dev.to_string() == device && status.st_ino.to_string() == inode
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::net::UnixStream, time::Instant};

    use super::*;

    fn over(road: Road) -> Stderr {
        Stderr { road, ..Stderr::new() }
    }

    /// Fills the sink, then reads it empty: no line may wait long, none may be torn, and the lost ones are counted.
    fn falls_behind_and_recovers(mut sink: Stderr, mut reader: impl Read) {
        let line = format!("{}\n", "x".repeat(99));
        let start = Instant::now();
        let lines = 20_000;
        for _ in 0..lines {
            sink.write(line.as_bytes());
        }
        // It waits once, and not for each line that finds no room; the rest is for slow machines.
        assert!(start.elapsed() < WAIT * lines / 4, "{:?}", start.elapsed());
        assert!(sink.full && sink.lost > 0);
        let mut seen = drain(&mut reader);
        sink.write(b"after\n");
        assert!(!sink.full && sink.lost == 0);
        drop(sink);
        reader.read_to_string(&mut seen).expect("the writer is gone");
        let whole = seen.lines().filter(|seen| *seen == line.trim_end()).count();
        // Short reports may fit where a line does not, so there may be several.
        let lost: Vec<usize> = seen
            .lines()
            .filter_map(|line| line.split_once("[warn] lost ")?.1.strip_suffix(" lines because stderr was not read"))
            .map(|count| count.parse().expect("a count"))
            .collect();
        assert_eq!(whole + lost.iter().sum::<usize>(), lines as usize);
        assert_eq!(seen.lines().count(), whole + lost.len() + 1);
        assert!(seen.ends_with("after\n"));
    }

    /// Everything that is in the sink now.
    fn drain(reader: &mut dyn Read) -> String {
        let mut seen = Vec::new();
        let error = reader.read_to_end(&mut seen).expect_err("the writer is still there");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        String::from_utf8(seen).expect("lines are text")
    }

    #[test]
    fn a_pipe_nobody_reads_does_not_stop_the_host() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let road = Road::to(writer.as_fd());
        assert!(matches!(road, Road::Own(_)));
        drop(writer);
        rustix::io::ioctl_fionbio(&reader, true).expect("a pipe can be made non-blocking");
        falls_behind_and_recovers(over(road), File::from(reader));
    }

    #[test]
    fn a_socket_nobody_reads_does_not_stop_the_host() {
        let (reader, writer) = UnixStream::pair().expect("a socket pair");
        let road = Road::to(writer.as_fd());
        assert!(matches!(road, Road::Socket(_)));
        drop(writer);
        reader.set_nonblocking(true).expect("a socket can be made non-blocking");
        falls_behind_and_recovers(over(road), reader);
    }

    #[test]
    fn a_reader_that_left_costs_nothing() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let mut sink = over(Road::to(writer.as_fd()));
        drop((reader, writer));
        sink.write(b"into the void\n");
        assert_eq!((sink.full, sink.lost), (false, 0));
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let (_reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let status = fstat(&writer).expect("status of a pipe");
        assert!(is_journal(writer.as_fd(), &format!("{}:{}", status.st_dev, status.st_ino)));
        for other in ["", "1:2:3", "1", &format!("{}:1", status.st_dev)] {
            assert!(!is_journal(writer.as_fd(), other), "{other}");
        }
    }
}
