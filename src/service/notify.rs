//! Words to the service manager: where there is none, every one of them is silently nothing.
//!
//! A datagram to PID 1's socket, which holds hundreds before a sender would wait; it is sent from whatever thread speaks.
//! A failed one is logged at debug and forgotten: the service manager draws its own conclusions from silence.

use std::{
    env,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

use crate::{
    error::{Error, Kind},
    log,
};

/// Longest status line, characters: what `systemctl status` shows of it in a terminal of two lines.
const STATUS_CHARACTERS: usize = 240;

/// The host runs and is what it should be.
pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// Settings are being read again.
pub fn reloading() {
    // Newer managers demand the time of it, older ones pass over it. The clock of the kernel cannot fail to be read.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(cause) => log::warn!("the service manager was not told of the reload: {cause}"),
    }
}

/// The host drains and ends.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// One line for an operator.
pub fn status(line: &str) {
    say(&[NotifyState::Status(&sanitised(line))]);
}

/// A start that takes longer than usual is making progress: patience for `time` more.
pub fn extend(time: Duration) {
    say(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
}

/// Every loop has moved.
pub fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// A loop is known to stand still: do not wait for the time-out.
pub fn dead(why: &str) {
    say(&[NotifyState::Status(&sanitised(why)), NotifyState::WatchdogTrigger]);
}

/// The host ends because of `error`.
pub fn failed(error: &Error) {
    say(&[NotifyState::Status(&sanitised(error.text())), NotifyState::Errno(errno(error.kind()))]);
}

/// Gives the service manager a descriptor to keep under `name` beyond our end.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>) {
    let words = [NotifyState::FdStore, NotifyState::FdName(name)];
    if let Err(cause) = sd_notify::notify_with_fds(&words, &[descriptor]) {
        log::warn!("the service manager does not keep {name}: {cause}");
    }
}

/// Has it forget what it keeps under `name`.
pub fn forget(name: &str) {
    say(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Whether somebody listens.
pub fn is_managed() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Longest silence the watchdog allows, where one watches this process.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn say(words: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(words) {
        log::debug!("the service manager was not told: {cause}");
    }
}

/// `line` without what would end it or hide it, and not too long: a line break would be a word of its own.
fn sanitised(line: &str) -> String {
    line.chars().map(|one| if one.is_control() { ' ' } else { one }).take(STATUS_CHARACTERS).collect()
}

/// The system's number for an error of `kind`, for the field of that name.
fn errno(kind: Kind) -> u32 {
    let number = match kind {
        Kind::Usage | Kind::Config | Kind::Invalid => libc::EINVAL,
        Kind::NotFound => libc::ENOENT,
        Kind::Conflict => libc::EADDRINUSE,
        Kind::Denied => libc::EACCES,
        Kind::Limit => libc::E2BIG,
        Kind::Timeout => libc::ETIMEDOUT,
        Kind::Unavailable => libc::EAGAIN,
        Kind::Storage => libc::EIO,
        Kind::Busy => libc::EBUSY,
        Kind::Guest | Kind::Internal => libc::EPROTO,
    };
    number.unsigned_abs()
}

/// Tells the status line when it changed: at once, but not more often than allowed.
pub struct StatusLine {
    said: String,
    at: Option<Instant>,
}

/// Least time between two status lines, unless something happened that an operator waits for.
pub const STATUS_GAP: Duration = Duration::from_secs(5);

impl StatusLine {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Self { said: String::new(), at: None }
    }

    /// Whether `line` is to be said at `now`; `news` is whether something happened beyond numbers that move.
    pub fn is_due(&mut self, line: &str, news: bool, now: Instant) -> bool {
        let recent = self.at.is_some_and(|at| now.saturating_duration_since(at) < STATUS_GAP);
        if line == self.said || recent && !news {
            return false;
        }
        self.said.clear();
        self.said.push_str(line);
        self.at = Some(now);
        true
    }

    /// Whether something else than `line` was said last.
    pub fn is_behind(&self, line: &str) -> bool {
        line != self.said
    }
}

impl Default for StatusLine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(sanitised("refused\nREADY=1\u{7}\t!"), "refused READY=1  !");
        assert_eq!(sanitised(&"ä".repeat(1000)).chars().count(), STATUS_CHARACTERS);
    }

    #[test]
    fn a_status_is_said_when_it_changes_and_not_too_often() {
        let (mut line, start) = (StatusLine::new(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(line.is_due("a", false, start));
        assert!(!line.is_due("a", true, later(100)));
        assert!(line.is_due("b", false, later(100)));
        assert!(!line.is_due("c", false, later(101)));
        assert!(line.is_due("c", true, later(101)));
        assert!(line.is_due("d", false, later(106)));
    }
}
