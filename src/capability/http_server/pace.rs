//! How far a connection has come, and when it has been too slow for too long.
//!
//! The connection notes what it does in a few atomics; the listener's one watch looks at all of them now and then and
//! shuts the sockets that are due. So no request starts a timer of its own, and a listener without connections wakes up
//! for nothing. The verdict itself is a plain function of numbers.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use super::settings::Settings;

use crate::lock::{Mutex, MutexGuard};

/// How long past its deadline an invocation may stay before its connection is cut. The router answers at the deadline;
/// this only catches one that never does.
const OVERDUE: Duration = Duration::from_secs(5);

/// How long a closed connection's last words may take to be read, so that the client sees the answer and not a reset.
pub const LINGER: Duration = Duration::from_secs(1);

/// Milliseconds since the first look at this clock; never 0.
pub fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    milliseconds(START.elapsed()) + 1
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The TLS handshake, or waiting for the first byte of the first request.
    Opening,
    /// Waiting for the next request.
    Idle,
    /// A request head has begun.
    Head,
    /// A request body is arriving.
    Body,
    /// The actor works.
    Handling,
    /// An answer is on its way.
    Responding,
    /// The answer is out; what the client still sends is thrown away.
    Lingering,
}

const PHASES: [Phase; 7] =
    [Phase::Opening, Phase::Idle, Phase::Head, Phase::Body, Phase::Handling, Phase::Responding, Phase::Lingering];

/// What the watch sees of one connection. Written by its task, read by the watch; a torn reading between two fields
/// costs at most one look.
#[derive(Debug)]
pub struct Pace {
    phase: AtomicU8,
    /// When the phase began.
    since: AtomicU64,
    /// When bytes last moved in this phase.
    progress: AtomicU64,
    /// Bytes moved in this phase.
    moved: AtomicU64,
    /// When the invocation must have ended.
    deadline: AtomicU64,
    /// Requests so far.
    requests: AtomicU32,
    /// The client may still be sending what nobody will read.
    linger: AtomicBool,
    /// The watch ended the body because it was too slow.
    stopped: AtomicBool,
    /// No request follows the one that came last: it said so itself.
    last: AtomicBool,
    /// Who reads the body, after the client ended its half of the connection.
    reader: Mutex<Option<Waker>>,
}

impl Default for Pace {
    fn default() -> Self {
        let now = now();
        Self {
            phase: AtomicU8::new(Phase::Opening as u8),
            since: AtomicU64::new(now),
            progress: AtomicU64::new(now),
            moved: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            linger: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            last: AtomicBool::new(false),
            reader: Mutex::new(None),
        }
    }
}

impl Pace {
    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Relaxed))]
    }

    /// When the phase began.
    pub fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// A new phase begins now.
    pub fn enter(&self, phase: Phase) {
        let now = now();
        self.since.store(now, Relaxed);
        self.progress.store(now, Relaxed);
        self.moved.store(0, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// The actor works, and is given so long.
    pub fn enter_handling(&self, timeout: Duration) {
        self.deadline.store(now().saturating_add(milliseconds(timeout)), Relaxed);
        self.enter(Phase::Handling);
    }

    /// One more request; answers how many there were.
    pub fn count_request(&self) -> u32 {
        self.requests.fetch_add(1, Relaxed) + 1
    }

    /// Bytes arrived.
    pub fn received(&self, bytes: usize) {
        match self.phase() {
            Phase::Opening | Phase::Idle => self.enter(Phase::Head),
            Phase::Body => self.progressed(bytes),
            Phase::Head | Phase::Handling | Phase::Responding | Phase::Lingering => {}
        }
    }

    /// Nothing waits to be sent: an answer, if there was one, is out.
    pub fn flushed(&self) {
        if self.phase() == Phase::Responding {
            self.enter(Phase::Idle);
        }
    }

    /// Bytes left.
    pub fn sent(&self, bytes: usize) {
        if self.phase() == Phase::Responding {
            self.progressed(bytes);
        }
    }

    /// Asks for a polite end: the client may still be sending.
    pub fn ask_to_linger(&self) {
        self.linger.store(true, Relaxed);
    }

    /// Whether a polite end was asked for.
    pub fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// The body was too slow and ends here.
    pub fn stop_reading(&self) {
        self.stopped.store(true, Relaxed);
        if let Some(reader) = self.reader().take() {
            reader.wake();
        }
    }

    /// The request that has just come is the last one of its client.
    pub fn note_last(&self) {
        self.last.store(true, Relaxed);
    }

    /// Whether the end of what the client sends ends the connection. After its last request it does not: many a client closes
    /// its half as soon as it has nothing more to say, and waits for the answer. `reader` is woken if the rest of a body does
    /// not come in time.
    pub fn ends_with_input(&self, reader: &Waker) -> bool {
        if !self.last.load(Relaxed) {
            return true;
        }
        *self.reader() = Some(reader.clone());
        self.was_too_slow()
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock()
    }

    /// Whether the body was too slow.
    pub fn was_too_slow(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    fn progressed(&self, bytes: usize) {
        self.progress.store(now(), Relaxed);
        self.moved.fetch_add(bytes as u64, Relaxed);
    }

    /// What is due at `now`.
    pub fn verdict(&self, now: u64, settings: &Settings) -> Verdict {
        let age = now.saturating_sub(self.since());
        let older_than = |limit: Duration| age > milliseconds(limit);
        let too_slow = || {
            let stall = milliseconds(settings.stall_timeout);
            let expected = (age / 1000).saturating_mul(settings.slowest_bytes_per_second);
            now.saturating_sub(self.progress.load(Relaxed)) > stall
                || (age > stall && self.moved.load(Relaxed) < expected)
        };
        let due = match self.phase() {
            Phase::Opening | Phase::Head => older_than(settings.head_timeout),
            Phase::Idle => older_than(settings.keep_alive),
            Phase::Body if too_slow() => return Verdict::StopReading,
            Phase::Body => false,
            Phase::Handling => now > self.deadline.load(Relaxed).saturating_add(milliseconds(OVERDUE)),
            Phase::Responding => too_slow(),
            Phase::Lingering => older_than(LINGER),
        };
        if due { Verdict::Close } else { Verdict::Keep }
    }
}

/// What the watch does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Read no more: the request is over, its answer may still go out.
    StopReading,
    /// Cut it.
    Close,
}

/// How often the watch looks while there are connections: a quarter of the shortest limit, so that none lasts much
/// longer than it says.
pub fn watch_interval(settings: &Settings) -> Duration {
    let shortest = settings.head_timeout.min(settings.keep_alive).min(settings.stall_timeout);
    (shortest / 4).max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{OVERDUE, Pace, Phase, Settings, Verdict, milliseconds, watch_interval};

    fn after(pace: &Pace, waited: Duration) -> Verdict {
        pace.verdict(pace.since() + milliseconds(waited), &Settings::default())
    }

    #[test]
    fn each_phase_has_its_limit() {
        let settings = Settings::default();
        let pace = Pace::default();
        let moment = Duration::from_millis(1);
        for (phase, limit) in [
            (Phase::Opening, settings.head_timeout),
            (Phase::Head, settings.head_timeout),
            (Phase::Idle, settings.keep_alive),
            (Phase::Responding, settings.stall_timeout),
        ] {
            pace.enter(phase);
            assert_eq!(after(&pace, limit), Verdict::Keep, "{phase:?}");
            assert_eq!(after(&pace, limit + moment), Verdict::Close, "{phase:?}");
        }
        pace.enter(Phase::Body);
        assert_eq!(after(&pace, settings.stall_timeout + moment), Verdict::StopReading);
        pace.enter_handling(Duration::from_secs(60));
        assert_eq!(after(&pace, Duration::from_secs(60) + OVERDUE - 10 * moment), Verdict::Keep);
        assert_eq!(after(&pace, Duration::from_secs(61) + OVERDUE), Verdict::Close);
    }

    #[test]
    fn a_body_must_keep_its_average_though_it_never_stalls() {
        let settings = Settings::default();
        let pace = Pace::default();
        pace.enter(Phase::Body);
        pace.received(1000);
        let in_20_seconds = pace.since() + 20_000;
        pace.progress.store(in_20_seconds, super::Relaxed);
        assert_eq!(pace.verdict(in_20_seconds, &settings), Verdict::StopReading, "50 bytes per second");
        pace.moved.store(20 * settings.slowest_bytes_per_second, super::Relaxed);
        assert_eq!(pace.verdict(in_20_seconds, &settings), Verdict::Keep);
    }

    #[test]
    fn bytes_begin_a_request_and_its_answer_ends_in_waiting() {
        let pace = Pace::default();
        pace.received(1);
        assert_eq!(pace.phase(), Phase::Head);
        pace.flushed();
        assert_eq!(pace.phase(), Phase::Head, "nothing was answered yet");
        pace.enter(Phase::Responding);
        pace.flushed();
        assert_eq!(pace.phase(), Phase::Idle);
        pace.received(1);
        assert_eq!(pace.phase(), Phase::Head);
    }

    #[test]
    fn the_watch_looks_often_enough_for_its_shortest_limit_and_no_more() {
        assert_eq!(watch_interval(&Settings::default()), Duration::from_millis(2500));
        let none = Settings { head_timeout: Duration::ZERO, ..Settings::default() };
        assert_eq!(watch_interval(&none), Duration::from_millis(10), "never a busy loop");
    }
}
