//! What a NATS server may say: each operation is judged before the client library sees it.
//!
//! The library trusts the server. It panics on a carriage return inside a header and on lengths near the largest number, and it
//! keeps whatever a line or an announced length promises. [`Scanner`] passes only what the library reads without error, says
//! how to make a message with a bad header harmless, and refuses the rest. It is a pure state machine: bytes in, pieces out. It
//! allocates nothing, never panics, and never waits for more than [`MAX_LINE_BYTES`], [`MAX_INFO_BYTES`] or
//! [`MAX_LINE_BYTES`] plus [`MAX_HEADER_BYTES`].
//!
//! Two kinds of fault are told apart. What the *server* does wrong is a [`Violation`]: the connection ends. What a *publisher*
//! can do through an honest server (bad headers, subjects that are no text, messages that are too long) costs that message or
//! its headers, and nothing else.

use std::{fmt, ops::Range};

/// Longest line of an operation, bytes, its end included. Servers take 4 KiB from clients unless set otherwise, and add a number
/// or two. A longer one ends the connection.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Longest `INFO` line, bytes. It names every server of a cluster: some 20 bytes each. A longer one ends the connection.
pub const MAX_INFO_BYTES: usize = 32 * 1024;

/// Longest header of a message, bytes. JetStream and traces need a few hundred. A message with a longer one arrives without
/// its headers.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Longest message that is passed on, bytes, its header included; servers take 1 MiB unless set otherwise. A longer one is
/// dropped: it would have to be held in memory as a whole.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Longest message any server can be set to take, bytes. One that announces more is none: the connection ends.
pub const MAX_SERVER_PAYLOAD_BYTES: usize = 64 << 20;

/// Digits of the largest length and subscription number that are read.
const MAX_DIGITS: usize = 20;

/// What begins each header.
const VERSION: &str = "NATS/1.0";

/// What was found at the beginning of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More bytes are needed to tell.
    Incomplete,
    /// An operation without a body, this long.
    Plain {
        /// Which.
        operation: Operation,
        /// Its length, bytes.
        length: usize,
    },
    /// A message begins: its line, and after it the header and the body, which come as [`Piece::Body`].
    Message(Message),
    /// So many bytes of the message that began before; its end is among them when `last`.
    Body {
        /// How many.
        length: usize,
        /// Whether the message ends with them.
        last: bool,
    },
}

/// Operations without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The server asks whether we are there.
    Ping,
    /// The server is there.
    Pong,
    /// The server took something.
    Ok,
    /// The server refuses something, in UTF-8.
    Error,
    /// The server tells of itself; its text is not judged here.
    Info,
}

/// The line of a message. Ranges are positions in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Length of the line, its end included.
    pub line: usize,
    /// Where its subject is.
    pub subject: Range<usize>,
    /// Number of the subscription.
    pub subscription: u64,
    /// Where the subject for answers is.
    pub reply: Option<Range<usize>>,
    /// Length of the header, none without.
    pub header: usize,
    /// Length of header and body.
    pub total: usize,
    /// What is to be done about it.
    pub verdict: Verdict,
}

/// What is to be done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on as it is.
    Pass,
    /// Its header is left out: the reason.
    WithoutHeader(&'static str),
    /// It is left out: the reason.
    Drop(&'static str),
}

/// Why the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server broke the NATS protocol: {}", self.0)
    }
}

/// Reads what a server says, one piece after the other.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Bytes of the current message that are to come, its end included.
    left: usize,
}

impl Scanner {
    /// What `input` begins with. The caller gives the rest of the input, and more of it, to the next call; [`Piece::Incomplete`]
    /// takes nothing.
    ///
    /// # Errors
    /// No server says this.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, Violation> {
        if self.left > 0 {
            return self.body(input);
        }
        let info = input.starts_with(b"INFO ");
        let most = if info { MAX_INFO_BYTES } else { MAX_LINE_BYTES };
        let searched = &input[..input.len().min(most)];
        let Some(end) = find_line_end(searched) else {
            // An unknown operation is refused now and not when its line ends.
            if !may_begin(searched) {
                return Err(Violation("an operation that is not known"));
            }
            return if searched.len() < most { Ok(Piece::Incomplete) } else { Err(Violation("a line without an end")) };
        };
        let (line, length) = (&input[..end], end + 2);
        let plain = |operation| Ok(Piece::Plain { operation, length });
        match line {
            b"PING" => plain(Operation::Ping),
            b"PONG" => plain(Operation::Pong),
            _ if line.starts_with(b"+OK") => plain(Operation::Ok),
            _ if info => plain(Operation::Info),
            _ if line.starts_with(b"-ERR ") => match std::str::from_utf8(line) {
                Ok(_) => plain(Operation::Error),
                Err(_) => Err(Violation("an error that is no text")),
            },
            _ if line.starts_with(b"MSG ") => {
                let message = read_line(line, 4, false)?;
                self.left = message.total + 2;
                Ok(Piece::Message(message))
            }
            _ if line.starts_with(b"HMSG ") => {
                let mut message = read_line(line, 5, true)?;
                if message.verdict == Verdict::Pass {
                    if message.header > MAX_HEADER_BYTES {
                        message.verdict = Verdict::WithoutHeader("its header is too long");
                    } else {
                        let Some(header) = input.get(length..length + message.header) else {
                            return Ok(Piece::Incomplete);
                        };
                        if let Err(why) = check_header(header) {
                            message.verdict = Verdict::WithoutHeader(why);
                        }
                    }
                }
                self.left = message.total + 2;
                Ok(Piece::Message(message))
            }
            _ => Err(Violation("an operation that is not known")),
        }
    }

    /// Bytes of the current message that are to come, its end included.
    pub fn left(&self) -> usize {
        self.left
    }

    fn body(&mut self, input: &[u8]) -> Result<Piece, Violation> {
        let length = input.len().min(self.left);
        if length == 0 {
            return Ok(Piece::Incomplete);
        }
        // The two bytes that end it may come one by one.
        for (at, expected) in [(2, b'\r'), (1, b'\n')] {
            if self.left >= at && self.left - at < length && input[self.left - at] != expected {
                return Err(Violation("a message that does not end where it should"));
            }
        }
        self.left -= length;
        Ok(Piece::Body { length, last: self.left == 0 })
    }
}

/// Where the line ends in `\r\n`, if it does.
fn find_line_end(input: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'\r', input.get(from..)?)?;
        match input.get(at + 1) {
            Some(b'\n') => return Some(at),
            Some(_) => from = at + 1,
            None => return None,
        }
    }
}

/// Whether an operation may begin so, as far as that can be told.
fn may_begin(input: &[u8]) -> bool {
    [&b"MSG "[..], b"HMSG ", b"PING\r", b"PONG\r", b"+OK", b"-ERR ", b"INFO "].iter().any(|known| {
        let common = known.len().min(input.len());
        known[..common] == input[..common]
    })
}

/// Reads the line of a message whose operation has `skip` bytes.
fn read_line(line: &[u8], skip: usize, with_header: bool) -> Result<Message, Violation> {
    const MANY: Violation = Violation("a message whose line has too many or too few parts");
    let mut parts: [Range<usize>; 5] = [const { 0..0 }; 5];
    let mut count = 0;
    let mut at = skip;
    while at < line.len() {
        if line[at] == b' ' {
            at += 1;
            continue;
        }
        let end = memchr::memchr(b' ', &line[at..]).map_or(line.len(), |length| at + length);
        *parts.get_mut(count).ok_or(MANY)? = at..end;
        count += 1;
        at = end;
    }
    let numbers = if with_header { 2 } else { 1 };
    let reply = match count.checked_sub(2 + numbers) {
        Some(0) => None,
        Some(1) => Some(parts[2].clone()),
        _ => return Err(MANY),
    };
    let number = |part: &Range<usize>| number(&line[part.clone()]).ok_or(Violation("a number that is none"));
    let length = |part: &Range<usize>| {
        let length = number(part)?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_SERVER_PAYLOAD_BYTES)
            .ok_or(Violation("a message longer than any server takes"))
    };
    let subscription = number(&parts[1])?;
    let total = length(&parts[count - 1])?;
    let header = if with_header { length(&parts[count - 2])? } else { 0 };
    if header > total {
        return Err(Violation("a header longer than its message"));
    }
    let subject = parts[0].clone();
    let verdict = if total > MAX_MESSAGE_BYTES {
        Verdict::Drop("it is too long")
    } else if !is_text(&line[subject.clone()]) || reply.clone().is_some_and(|reply| !is_text(&line[reply])) {
        Verdict::Drop("its subject is no text")
    } else {
        Verdict::Pass
    };
    Ok(Message { line: line.len() + 2, subject, subscription, reply, header, total, verdict })
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the library takes this as one word of a line: it splits some lines at every white space that Unicode knows.
fn is_text(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_graphic)
        || std::str::from_utf8(word).is_ok_and(|word| !word.contains(char::is_whitespace))
}

/// Whether the library reads this header without error.
fn check_header(header: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    let status = version.strip_prefix(VERSION).ok_or("its header has no version")?.trim();
    let status = status.split_once(' ').map_or(status, |(status, _)| status.trim());
    if !(status.is_empty() || matches!(status.as_bytes(), [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'])) {
        return Err("its header has a status that is none");
    }
    if version.contains('\r') {
        return Err("its header has a carriage return inside a line");
    }
    // Whether the next line may go on with a value.
    let mut inside = false;
    for line in lines {
        if line.contains('\r') {
            return Err("its header has a carriage return inside a line");
        }
        if line.is_empty() {
            inside = false;
        } else if !(inside && line.starts_with(char::is_whitespace)) {
            let (name, _) = line.split_once(':').ok_or("its header has a line without a name")?;
            if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("its header has a name that is none");
            }
            inside = true;
        }
    }
    Ok(())
}
