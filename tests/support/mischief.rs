//! A proxy in front of a server of files or images that does to answers what links and servers do: cuts, slows, corrupts,
//! truncates, redirects, refuses for a while, gives something else, never ends.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// What happens to one answer.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Nothing.
    Pass,
    /// The connection is cut after so many bytes of the body.
    Cut(u64),
    /// The body ends early, politely, after so many bytes, and the head says so.
    Truncate(u64),
    /// The byte at this place is another one.
    Corrupt(u64),
    /// After so many bytes nothing comes any more, and the connection stays.
    Silence(u64),
    /// This status, with these header lines and this body.
    Answer(u16, Vec<String>, Vec<u8>),
    /// Status 200 and bytes without end.
    Endless,
    /// The request's `Range` is not passed on.
    IgnoreRange,
}

/// The proxy. Ends when dropped.
pub struct Mischief {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    /// Deeds for requests whose line contains the text, in order; then nothing happens to it.
    script: Mutex<VecDeque<(String, Deed)>>,
    /// Request lines and headers so far.
    requests: Mutex<Vec<String>>,
    /// Bytes of bodies sent to clients.
    sent: AtomicU64,
    /// Bytes a second.
    rate: AtomicU64,
    /// Every connection is cut when this much of its time has passed, milliseconds.
    lifetime: AtomicU64,
    ended: AtomicBool,
}

impl Mischief {
    /// In front of `upstream`.
    pub fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            upstream,
            script: Mutex::default(),
            requests: Mutex::default(),
            sent: AtomicU64::new(0),
            rate: AtomicU64::new(u64::MAX),
            lifetime: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if serving.ended.load(SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, serving.clone()) else { continue };
                // A client that hangs up early is one of the things that happen.
                thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next requests whose line contains `text` get `deeds`, one each.
    pub fn plan(&self, text: &str, deeds: impl IntoIterator<Item = Deed>) {
        lock(&self.shared.script).extend(deeds.into_iter().map(|deed| (text.to_owned(), deed)));
    }

    /// From now on bodies come at `bytes_per_second`, and a connection lives for `lifetime`.
    pub fn slow(&self, bytes_per_second: u64, lifetime: Duration) {
        self.shared.rate.store(bytes_per_second, SeqCst);
        self.shared.lifetime.store(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX), SeqCst);
    }

    /// Forgets what was planned and what happened.
    pub fn forget(&self) {
        lock(&self.shared.script).clear();
        lock(&self.shared.requests).clear();
        self.shared.sent.store(0, SeqCst);
    }

    /// Heads of the requests so far, headers in lower case.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// Bytes of bodies that went to clients so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }
}

impl Drop for Mischief {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let head = head(&mut reader)?;
        lock(&self.requests).push(head.to_ascii_lowercase());
        let line = head.lines().next().unwrap_or_default().to_owned();
        let deed = {
            let mut script = lock(&self.script);
            let place = script.iter().position(|(text, _)| line.contains(&**text));
            place.and_then(|place| script.remove(place)).map_or(Deed::Pass, |(_, deed)| deed)
        };
        match &deed {
            Deed::Answer(status, headers, body) => return self.answer(client, *status, headers, body),
            Deed::Endless => return self.endless(client),
            _ => {}
        }
        let mut server = TcpStream::connect(self.upstream)?;
        let skip_range = matches!(deed, Deed::IgnoreRange);
        let mut request = format!("{line}\r\n");
        for header in head.lines().skip(1) {
            let name = header.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if name != "connection" && !(skip_range && (name == "range" || name == "if-range")) {
                request.push_str(&format!("{header}\r\n"));
            }
        }
        request.push_str("Connection: close\r\n\r\n");
        server.write_all(request.as_bytes())?;
        self.pass(client, BufReader::new(server), &deed)
    }

    fn pass(&self, mut client: TcpStream, mut server: BufReader<TcpStream>, deed: &Deed) -> io::Result<()> {
        let mut head = head(&mut server)?;
        if let Deed::Truncate(bytes) = deed {
            let lines = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
            head =
                lines.map(|line| format!("{line}\r\n")).collect::<String>() + &format!("Content-Length: {bytes}\r\n");
        }
        client.write_all(format!("{head}\r\n").as_bytes())?;
        let (start, mut done) = (Instant::now(), 0_u64);
        let lifetime = Duration::from_millis(self.lifetime.load(SeqCst));
        let mut piece = [0; 4096];
        loop {
            let mut count = server.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            let limit = match deed {
                Deed::Cut(limit) | Deed::Truncate(limit) | Deed::Silence(limit) => Some(*limit),
                _ => None,
            };
            if let Some(limit) = limit {
                count = count.min(usize::try_from(limit - done).unwrap_or(count));
            }
            if let Deed::Corrupt(place) = deed
                && (done..done + count as u64).contains(place)
            {
                piece[usize::try_from(place - done).unwrap_or(0)] ^= 0x40;
            }
            client.write_all(&piece[..count])?;
            self.sent.fetch_add(count as u64, SeqCst);
            done += count as u64;
            if limit == Some(done) {
                if matches!(deed, Deed::Silence(_)) {
                    // Until the client has had enough.
                    let _ = client.read(&mut [0]);
                }
                return client.shutdown(std::net::Shutdown::Both);
            }
            let rate = self.rate.load(SeqCst);
            if rate < u64::MAX {
                let due = start + Duration::from_secs_f64(done as f64 / rate as f64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if start.elapsed() > lifetime {
                return client.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn answer(&self, mut client: TcpStream, status: u16, headers: &[String], body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} Planned\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        client.write_all(format!("{head}\r\n").as_bytes())?;
        client.write_all(body)?;
        self.sent.fetch_add(body.len() as u64, SeqCst);
        Ok(())
    }

    fn endless(&self, mut client: TcpStream) -> io::Result<()> {
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
        loop {
            client.write_all(&[b' '; 4096])?;
            self.sent.fetch_add(4096, SeqCst);
        }
    }
}

fn head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(head);
        }
        head.push_str(&line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
