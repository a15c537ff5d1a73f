//! One line per event, behind one macro that hides where lines go.
//!
//! ```ignore
//! log::info!("started {count} instances"; actor_id = key, name = claims.name);
//! ```
//! The text comes first, as in `format!`; fields after the `;` are displayed values under the names of
//! `protocol/config.md §7`. Never pass a secret to either.
//!
//! Every room calls it. It never blocks on whoever reads stderr for longer than [`stderr::WAIT`], never lets a guest
//! start a line of its own, and never allocates: a line is built on the stack, the tables are of fixed size.

mod event;
mod format;
mod limit;
mod line;
mod names;
mod stderr;

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

pub use event::{Event, Level};
pub use format::Format;

use limit::{Limiter, Verdict};
use names::Names;
use stderr::Stderr;

use crate::lock::Mutex;

/// The gravest level that is not written, as a number: 0 is [`Level::Error`].
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static LIMITER: Mutex<Limiter> = Mutex::new(Limiter::new());
static NAMES: Mutex<Names> = Mutex::new(Names::new());
static STDERR: Mutex<Stderr> = Mutex::new(Stderr::new());

/// How the log of this process looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The least grave level that is written.
    pub level: Level,
    /// One JSON object per line instead of text for people.
    pub structured: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: Level::Info, structured: false }
    }
}

/// Applies `settings` and looks at what stderr is: a terminal, the journal, a pipe or a file.
///
/// Events before the first call are written as plain text at level info.
pub fn setup(settings: Settings) {
    set_level(settings.level);
    STDERR.lock().open(settings.structured);
}

/// Changes the level from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether an event of `level` would be written; lets callers skip costly arguments.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Shows `name` beside `key` (an actor, provider or host key) in every later line; an empty name forgets it.
///
/// At most [`names::CAPACITY`] names are kept; the oldest makes room.
pub fn name(key: &str, name: &str) {
    NAMES.lock().set(key, name);
}

/// Writes one line of a guest, whatever it holds: control characters are escaped, the length is bounded, and the
/// actor's key stands before the text so that the text cannot pretend to be another's.
pub fn guest(actor: &str, level: Level, text: &str) {
    if enabled(level) {
        dispatch(&Event {
            level,
            target: "guest",
            text: format_args!("{text}"),
            fields: &[("actor_id", &actor)],
            guest: true,
        });
    }
}

/// Writes one line that a provider's process printed, as [`guest`] does for an actor.
pub fn provider(provider: &str, level: Level, text: &str) {
    if enabled(level) {
        dispatch(&Event {
            level,
            target: "provider",
            text: format_args!("{text}"),
            fields: &[("provider_id", &provider)],
            guest: true,
        });
    }
}

/// Reports lines that were held back and whose source is quiet again, and lines that stderr did not take. The
/// housekeeping tick and the end of the process call it.
pub fn settle() {
    report_suppressed(now());
    STDERR.lock().settle();
}

/// Writes one event; use the macros instead.
#[doc(hidden)]
pub fn write(level: Level, target: &'static str, text: fmt::Arguments<'_>, fields: &[(&str, &dyn fmt::Display)]) {
    dispatch(&Event { level, target, text, fields, guest: false });
}

/// Takes an event past the rate limit to every sink.
fn dispatch(event: &Event<'_>) {
    let now = now();
    let verdict = LIMITER.lock().admit(event.target, event.source().as_deref(), now);
    match verdict {
        Verdict::Write => {}
        Verdict::WriteAfterReport => report_suppressed(now),
        Verdict::Suppress => return,
    }
    deliver(event);
}

/// Says how many lines of which source were held back.
fn report_suppressed(now: Duration) {
    loop {
        // The lock is not held while the report is written, or the report itself could not be.
        let Some(report) = LIMITER.lock().take_report(now) else { return };
        let lines = report.lines;
        let fields: [(&str, &dyn fmt::Display); 2] = [("source", &report.target), ("actor_id", &report.key)];
        let fields = if report.key.is_empty() { &fields[..1] } else { &fields[..] };
        let text = format_args!("held back {lines} lines that came too fast");
        deliver(&Event { level: Level::Warn, target: module_path!(), text, fields, guest: false });
    }
}

/// Hands an event to the sinks. A further sink joins here.
fn deliver(event: &Event<'_>) {
    #[cfg(test)]
    if capture::take(event) {
        return;
    }
    let format = STDERR.lock().format();
    let line = format.render(event, std::time::SystemTime::now(), |key, into| NAMES.lock().get(key, into));
    STDERR.lock().write(line.as_bytes());
}

/// Time since the first event: the limiter needs no more.
fn now() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// What a test's own thread logs.
#[cfg(test)]
pub(crate) mod capture {
    use std::{cell::RefCell, time::SystemTime};

    use super::{Event, Format};

    thread_local! {
        static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    }

    /// Runs `body` and answers, beside its result, the lines that this thread logged meanwhile, without their time.
    pub(crate) fn lines<T>(body: impl FnOnce() -> T) -> (T, Vec<String>) {
        LINES.with_borrow_mut(|lines| *lines = Some(Vec::new()));
        let result = body();
        let lines = LINES.with_borrow_mut(|lines| lines.take().unwrap_or_default());
        (result, lines)
    }

    pub(super) fn take(event: &Event<'_>) -> bool {
        LINES.with_borrow_mut(|lines| {
            let Some(lines) = lines else { return false };
            let line = Format::Journal.render(event, SystemTime::UNIX_EPOCH, |_, _| false);
            lines.push(line.trim_end().to_owned());
            true
        })
    }
}

/// Writes an event of the level given first. Use the macros named after the levels.
#[doc(hidden)]
#[macro_export]
macro_rules! log_emit {
    ($level:expr, $format:literal $(, $argument:expr)* $(,)? $(; $($name:ident = $value:expr),* $(,)?)?) => {
        if $crate::log::enabled($level) {
            $crate::log::write(
                $level,
                module_path!(),
                format_args!($format $(, $argument)*),
                &[$($((stringify!($name), &$value as &dyn ::std::fmt::Display)),*)?],
            )
        }
    };
}
/// The host or an entity cannot do its work. Call it as `log::error!`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_error {
    ($($rest:tt)*) => { $crate::log_emit!($crate::log::Level::Error, $($rest)*) };
}
/// Something is wrong or will be; work goes on. Call it as `log::warn!`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn {
    ($($rest:tt)*) => { $crate::log_emit!($crate::log::Level::Warn, $($rest)*) };
}
/// What an operator wants to see on a normal day. Call it as `log::info!`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_info {
    ($($rest:tt)*) => { $crate::log_emit!($crate::log::Level::Info, $($rest)*) };
}
/// What a developer of actors or providers wants to see. Call it as `log::debug!`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug {
    ($($rest:tt)*) => { $crate::log_emit!($crate::log::Level::Debug, $($rest)*) };
}
/// Everything. Call it as `log::trace!`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace {
    ($($rest:tt)*) => { $crate::log_emit!($crate::log::Level::Trace, $($rest)*) };
}
pub use crate::{
    log_debug as debug, log_emit as emit, log_error as error, log_info as info, log_trace as trace, log_warn as warn,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log;

    #[test]
    fn macros_take_text_arguments_and_fields() {
        let count = 3;
        let ((), lines) = capture::lines(|| {
            log::info!("started {count} of {}", 4; link_name = "default", contract_id = "a b");
            log::debug!("hidden at level info");
            log::warn!("bare");
        });
        assert_eq!(lines, ["<6>started 3 of 4 link_name=default contract_id=\"a b\"", "<4>bare"]);
    }

    #[test]
    fn a_guest_cannot_start_a_line_or_claim_another_key() {
        let ((), lines) = capture::lines(|| guest("MREAL", Level::Info, "x\n<0>fake actor_id=MOTHER\u{1b}[2J"));
        assert_eq!(lines, ["<6>actor_id=MREAL: x\\n<0>fake actor_id=MOTHER\\u{1b}[2J"]);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let ((), lines) = capture::lines(|| {
            for number in 0..2 * limit::BURST_LINES {
                log::guest("MFLOODOFTHISTESTALONE", Level::Info, &number.to_string());
            }
        });
        let written = lines.len() as u64;
        assert!((limit::BURST_LINES..2 * limit::BURST_LINES).contains(&written), "{written} lines");
        LIMITER.lock().age_for_test(Duration::from_secs(3600));
        let ((), lines) = capture::lines(settle);
        let report = lines.iter().find(|line| line.contains("MFLOODOFTHISTESTALONE")).expect("a report of the flood");
        assert!(report.starts_with("<4>held back "), "{report}");
    }
}
