//! What guests print, bounded in length and rate before it reaches the log.

use std::time::{Duration, Instant};

/// The time the rate is counted over.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts the log texts of one actor.
pub struct Console {
    text_limit_bytes: usize,
    per_window: u32,
    window_start: Instant,
    passed: u32,
    dropped: u64,
}

impl Console {
    /// A console that passes `per_window` texts per second of at most `text_limit_bytes` each.
    pub fn new(text_limit_bytes: usize, per_window: u32, now: Instant) -> Self {
        Self { text_limit_bytes, per_window, window_start: now, passed: 0, dropped: 0 }
    }

    /// The text to log for what the guest wrote at `now`, or nothing when it writes too often.
    pub fn admit(&mut self, text: &[u8], now: Instant) -> Option<String> {
        if now.duration_since(self.window_start) >= WINDOW {
            self.window_start = now;
            self.passed = 0;
        }
        if self.passed >= self.per_window {
            self.dropped += 1;
            return None;
        }
        self.passed += 1;
        let shown = &text[..text.len().min(self.text_limit_bytes)];
        let mut admitted = String::from_utf8_lossy(shown).into_owned();
        if shown.len() < text.len() {
            let cut = text.len() - shown.len();
            admitted.push_str(&format!("… ({cut} bytes more than WASMCLOUD_ACTOR_LOG_BYTES allows)"));
        }
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            admitted.push_str(&format!(" ({dropped} texts before this one dropped: WASMCLOUD_ACTOR_LOG_PER_SECOND)"));
        }
        Some(admitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_dropped_counted_and_told() {
        let start = Instant::now();
        let mut console = Console::new(100, 2, start);
        assert_eq!(console.admit(b"one", start).as_deref(), Some("one"));
        assert_eq!(console.admit(b"two", start).as_deref(), Some("two"));
        for _ in 0..1000 {
            assert_eq!(console.admit(b"flood", start), None);
        }
        let told = console.admit(b"later", start + WINDOW).unwrap();
        assert!(told.starts_with("later (1000 texts before"), "{told}");
        assert_eq!(console.admit(b"quiet", start + WINDOW).as_deref(), Some("quiet"));
    }

    #[test]
    fn a_long_text_is_cut_even_inside_a_character() {
        let mut console = Console::new(3, 10, Instant::now());
        let admitted = console.admit("abüd".as_bytes(), Instant::now()).unwrap();
        assert!(admitted.starts_with("ab\u{fffd}… (2 bytes more"), "{admitted}");
    }
}
