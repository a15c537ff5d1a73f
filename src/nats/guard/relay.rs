//! Passes bytes between the client library and a server, both ways, in one task.
//!
//! What the library says is passed as it is. What the server says goes through the [`Scanner`] and is counted in [`Flow`]; what
//! is left out is cut out of the buffer, so that the rest still goes on in one piece. Nothing is copied or allocated for
//! messages that are fine.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    dial::Line,
    flow::{Counted, Flow},
    info::Info,
    listener::Watched,
    scanner::{MAX_HEADER_BYTES, MAX_LINE_BYTES, Message, Operation, Piece, Scanner, Verdict, Violation},
};

/// What is read from a server at once, bytes: more than the scanner ever waits for.
const DOWN_BYTES: usize = 64 * 1024;
const _: () = assert!(DOWN_BYTES > MAX_LINE_BYTES + MAX_HEADER_BYTES);

/// What is read from the library at once, bytes.
const UP_BYTES: usize = 32 * 1024;

/// How long readers may take to make room before what does not fit is dropped. Meanwhile nothing is read for anybody.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

/// For how long what does not fit is then dropped at once, so that a reader that stands still costs the others a fifth of
/// the time at most.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// For how long the server may have more than we read at once before we count as behind: then each source has room only for
/// what readers take at once. The server ends connections that stay behind.
const BEHIND_AFTER: Duration = Duration::from_millis(250);

/// For how long we then count as behind at least.
const BEHIND_FOR: Duration = Duration::from_secs(1);

/// Reads of a full buffer before other tasks of this thread get their turn.
const READS_PER_TURN: usize = 2;

/// Operations that are judged before other tasks of this thread get their turn: a server may send ten thousand in one read.
const PIECES_PER_TURN: usize = 256;

/// Shortest time between two questions of the server whether we are there that are passed on. The library queues an answer to
/// each; servers ask every few seconds at most.
const PING_GAP: Duration = Duration::from_millis(50);

/// Why a relay ended.
#[derive(Debug)]
pub(super) enum End {
    /// The library closed its side. What it had not read is lost.
    Library,
    /// The server did not take the login in time.
    Login,
    /// The server closed its side, or the line broke.
    Server(Option<io::Error>),
    /// The server broke the protocol.
    Violation(Violation),
}

/// How far the judging came.
enum Judged {
    /// All that was read whole.
    All,
    /// Up to a message for which there is no room.
    NoRoom,
    /// Others are to have their turn.
    TurnOver,
}

/// What was left out so far, of all connections of a guard.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Messages that arrived without their headers.
    pub headers: AtomicU64,
    /// Messages that cannot be passed on.
    pub unfit: AtomicU64,
    /// Messages for which there was no room.
    pub no_room: AtomicU64,
}

/// One connection of the library, and the one to the server that belongs to it.
pub(super) struct Relay<'a> {
    pub library: TcpStream,
    pub server: Box<dyn Line>,
    pub flow: Arc<Flow>,
    pub watched: &'a Watched,
    /// When the server must have taken the login.
    pub login: Option<Pin<Box<Sleep>>>,
    pub up: Up,
    pub down: Down,
}

/// From the library to the server.
pub(super) struct Up {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    flush: bool,
    closed: bool,
}

/// From the server to the library: `..start` was written, `start..ready` is to be written, `scanned..end` is to be judged.
pub(super) struct Down {
    buffer: Vec<u8>,
    start: usize,
    ready: usize,
    scanned: usize,
    end: usize,
    scanner: Scanner,
    /// Bytes of the current message that are left out.
    skip: usize,
    /// The current message, while it is passed on.
    current: Option<Counted>,
    /// Since when the server has more than we read at once.
    behind: Option<Instant>,
    /// Until when we count as behind.
    pressed: Option<Instant>,
    /// When the server was last answered that we are there.
    pinged: Option<Instant>,
    /// Since when there is no room for the next message.
    no_room: Option<Pin<Box<Sleep>>>,
    /// Until when what does not fit is dropped at once.
    impatient: Option<Instant>,
    /// Whether the server took the login.
    pub logged_in: bool,
    /// Whether the server refused something before that.
    pub refused: bool,
}

impl Up {
    pub fn new() -> Self {
        Self { buffer: vec![0; UP_BYTES], start: 0, end: 0, flush: false, closed: false }
    }

    /// Whether all that was read is with the system.
    fn is_empty(&self) -> bool {
        self.start == self.end && !self.flush
    }
}

impl Down {
    /// `first` is for the library before anything else, `rest` came from the server already.
    pub fn new(rest: &[u8]) -> Self {
        let mut buffer = vec![0; DOWN_BYTES.max(rest.len())];
        buffer[..rest.len()].copy_from_slice(rest);
        Self {
            buffer,
            start: 0,
            ready: 0,
            scanned: 0,
            end: rest.len(),
            scanner: Scanner::default(),
            skip: 0,
            current: None,
            behind: None,
            pressed: None,
            pinged: None,
            no_room: None,
            impatient: None,
            logged_in: false,
            refused: false,
        }
    }

    /// Passes the next `length` bytes on.
    fn pass(&mut self, length: usize) {
        if self.ready != self.scanned {
            self.buffer.copy_within(self.scanned..self.scanned + length, self.ready);
        }
        self.ready += length;
        self.scanned += length;
    }

    /// Puts `text` in place of the next `length` bytes, which are no fewer.
    fn replace(&mut self, length: usize, text: &[u8]) {
        debug_assert!(text.len() <= length);
        self.buffer[self.ready..self.ready + text.len()].copy_from_slice(text);
        self.ready += text.len();
        self.scanned += length;
    }

    /// Makes room for the next read.
    fn make_room(&mut self) {
        if self.start == self.ready {
            self.buffer.copy_within(self.scanned..self.end, 0);
            (self.start, self.ready, self.end) = (0, 0, self.end - self.scanned);
            self.scanned = 0;
        } else if self.ready < self.scanned {
            self.buffer.copy_within(self.scanned..self.end, self.ready);
            self.end -= self.scanned - self.ready;
            self.scanned = self.ready;
        }
    }
}

impl Relay<'_> {
    /// Passes bytes until one side ends.
    pub async fn run(mut self) -> (End, Self) {
        let end = std::future::poll_fn(|context| self.poll(context)).await;
        if let Some(counted) = self.down.current.take() {
            self.flow.leave(counted);
        }
        (end, self)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.watched.register(context.waker());
        if let Poll::Ready(end) = self.poll_up(context) {
            return Poll::Ready(end);
        }
        if self.up.is_empty() {
            self.watched.flushed(&self.library);
        }
        if let Poll::Ready(end) = self.poll_down(context) {
            return Poll::Ready(end);
        }
        if self.down.logged_in {
            self.login = None;
        }
        match &mut self.login {
            Some(login) => login.as_mut().poll(context).map(|()| End::Login),
            None => Poll::Pending,
        }
    }

    /// Hands the library what was judged and not written yet.
    pub async fn write_rest(&mut self) -> io::Result<()> {
        let Down { buffer, start, ready, .. } = &self.down;
        self.library.write_all(&buffer[*start..*ready]).await
    }

    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let up = &mut self.up;
        loop {
            let mut moved = false;
            if up.start == up.end {
                (up.start, up.end) = (0, 0);
            }
            if !up.closed && up.end < up.buffer.len() {
                let mut room = ReadBuf::new(&mut up.buffer[up.end..]);
                match Pin::new(&mut self.library).poll_read(context, &mut room) {
                    Poll::Ready(Ok(())) if room.filled().is_empty() => up.closed = true,
                    Poll::Ready(Ok(())) => {
                        up.end += room.filled().len();
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Library),
                    Poll::Pending => {}
                }
            }
            while up.start < up.end {
                match Pin::new(&mut self.server).poll_write(context, &up.buffer[up.start..up.end]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(End::Server(None)),
                    Poll::Ready(Ok(length)) => {
                        up.start += length;
                        (moved, up.flush) = (true, true);
                    }
                    Poll::Ready(Err(cause)) => return Poll::Ready(End::Server(Some(cause))),
                    Poll::Pending => break,
                }
            }
            if !moved {
                break;
            }
        }
        if up.flush {
            match Pin::new(&mut self.server).poll_flush(context) {
                Poll::Ready(Ok(())) => up.flush = false,
                Poll::Ready(Err(cause)) => return Poll::Ready(End::Server(Some(cause))),
                Poll::Pending => {}
            }
        }
        if up.closed && up.is_empty() { Poll::Ready(End::Library) } else { Poll::Pending }
    }

    fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let mut reads = 0;
        loop {
            let judged = self.judge(context);
            if let Poll::Ready(Err(end)) = self.poll_write_down(context) {
                return Poll::Ready(end);
            }
            match judged {
                Err(violation) => return Poll::Ready(End::Violation(violation)),
                // Nothing is read before there is room, or the time is over.
                Ok(Judged::NoRoom) => return Poll::Pending,
                Ok(Judged::TurnOver) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Judged::All) => {}
            }
            let down = &mut self.down;
            if down.end == down.buffer.len() || down.start == down.ready {
                down.make_room();
            }
            if down.end == down.buffer.len() {
                // The library is behind; its socket wakes this task.
                return Poll::Pending;
            }
            if reads == READS_PER_TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut room = ReadBuf::new(&mut down.buffer[down.end..]);
            match ready!(Pin::new(&mut self.server).poll_read(context, &mut room)) {
                Ok(()) if room.filled().is_empty() => return Poll::Ready(End::Server(None)),
                Ok(()) => {}
                Err(cause) => return Poll::Ready(End::Server(Some(cause))),
            }
            let (length, full) = (room.filled().len(), room.remaining() == 0);
            down.end += length;
            if full {
                reads += 1;
                let now = Instant::now();
                if now - *down.behind.get_or_insert(now) > BEHIND_AFTER {
                    down.pressed = Some(now + BEHIND_FOR);
                }
            } else {
                down.behind = None;
            }
        }
    }

    fn poll_write_down(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let down = &mut self.down;
        while down.start < down.ready {
            let written = Pin::new(&mut self.library).poll_write(context, &down.buffer[down.start..down.ready]);
            match ready!(written) {
                Ok(length) if length > 0 => down.start += length,
                _ => return Poll::Ready(Err(End::Library)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Judges what was read.
    fn judge(&mut self, context: &mut Context<'_>) -> Result<Judged, Violation> {
        for _ in 0..PIECES_PER_TURN {
            let down = &mut self.down;
            let before = down.scanner.clone();
            match down.scanner.next(&down.buffer[down.scanned..down.end])? {
                Piece::Incomplete => return Ok(Judged::All),
                Piece::Plain { operation, length } => self.plain(operation, length)?,
                Piece::Message(message) => {
                    if !self.message(context, &message) {
                        self.down.scanner = before;
                        return Ok(Judged::NoRoom);
                    }
                }
                Piece::Body { length, last } => {
                    let skip = down.skip.min(length);
                    down.skip -= skip;
                    down.scanned += skip;
                    down.pass(length - skip);
                    if last {
                        down.current = None;
                    }
                }
            }
        }
        Ok(Judged::TurnOver)
    }

    fn plain(&mut self, operation: Operation, length: usize) -> Result<(), Violation> {
        let down = &mut self.down;
        match operation {
            // The library queues an answer to each. A server that asks and does not read gets none.
            Operation::Ping if self.up.start < self.up.end => down.replace(length, b""),
            Operation::Ping => {
                let now = Instant::now();
                if down.pinged.is_some_and(|last| now - last < PING_GAP) {
                    down.replace(length, b"");
                } else {
                    down.pinged = Some(now);
                    down.pass(length);
                }
            }
            Operation::Pong => {
                down.logged_in |= !down.refused;
                down.pass(length);
            }
            Operation::Error => {
                down.refused |= !down.logged_in;
                down.pass(length);
            }
            Operation::Ok => down.replace(length, b""),
            Operation::Info => {
                let line = &down.buffer[down.scanned..down.scanned + length];
                let info = Info::read(line).map_err(|_| Violation("what it tells of itself cannot be read"))?;
                self.watched.learn(&info);
                let told: &[u8] = if info.lame_duck { b"INFO {\"ldm\":true}\r\n" } else { b"" };
                down.replace(length, if told.len() <= length { told } else { b"" });
            }
        }
        Ok(())
    }

    /// Decides on a message; `false` when it must wait.
    fn message(&mut self, context: &mut Context<'_>, message: &Message) -> bool {
        let Message { line, ref subject, subscription, ref reply, header, total, verdict } = *message;
        let left_out = &self.watched.left_out;
        let down = &mut self.down;
        let text = &down.buffer[down.scanned..];
        let kept = if matches!(verdict, Verdict::WithoutHeader(_)) { total - header } else { total };
        if let Verdict::Drop(why) = verdict {
            left_out.unfit.fetch_add(1, Relaxed);
            self.watched.tell("was dropped", &text[subject.clone()], why);
            down.replace(line, b"");
            down.skip = total + 2;
            return true;
        }
        let reply = reply.clone().map(|reply| &text[reply]);
        let length = kept + subject.len() + reply.map_or(0, <[u8]>::len);
        // Most of the time neither is set, and no clock is read.
        let before =
            |until: Option<Instant>| until.map(|until| (until, Instant::now())).filter(|(until, now)| now < until);
        let behind = before(down.pressed).map(|(_, now)| now);
        let impatient = before(down.impatient).is_some();
        match self.flow.enter(subscription, reply, length, behind) {
            Some(counted) => {
                down.current = counted;
                down.no_room = None;
            }
            None if behind.is_some() || impatient => return self.no_room(message),
            None => {
                let waits = down.no_room.get_or_insert_with(|| Box::pin(sleep(ROOM_PATIENCE)));
                if waits.as_mut().poll(context).is_pending() {
                    self.flow.wait(context.waker());
                    // A reader may have made room before the waker was there.
                    let Some(counted) = self.flow.enter(subscription, reply, length, behind) else { return false };
                    down.current = counted;
                    down.no_room = None;
                } else {
                    down.impatient = Some(Instant::now() + IMPATIENCE);
                    return self.no_room(message);
                }
            }
        }
        let down = &mut self.down;
        let Verdict::WithoutHeader(why) = verdict else {
            down.pass(line);
            return true;
        };
        left_out.headers.fetch_add(1, Relaxed);
        let text = &down.buffer[down.scanned..];
        self.watched.tell("arrived without its headers", &text[subject.clone()], why);
        let mut without = Vec::with_capacity(line);
        without.extend_from_slice(b"MSG ");
        without.extend_from_slice(&text[subject.clone()]);
        without.extend_from_slice(format!(" {subscription} ").as_bytes());
        if let Some(reply) = &message.reply {
            without.extend_from_slice(&text[reply.clone()]);
            without.push(b' ');
        }
        without.extend_from_slice(format!("{kept}\r\n").as_bytes());
        down.replace(line, &without);
        down.skip = header;
        true
    }

    /// Leaves a message out for which there is no room.
    fn no_room(&mut self, message: &Message) -> bool {
        let down = &mut self.down;
        self.watched.left_out.no_room.fetch_add(1, Relaxed);
        let subject = &down.buffer[down.scanned..][message.subject.clone()];
        self.watched.tell("was dropped", subject, "too many bytes wait for this host already");
        down.no_room = None;
        down.replace(message.line, b"");
        down.skip = message.total + 2;
        true
    }
}
