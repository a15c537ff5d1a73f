//! As much of an HTTP client as tests need: one blocking request, or many over one connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// How long a test waits for one answer. Far above what any answer takes; a test that reaches it fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that is kept alive between requests.
pub struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects to `address`.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), body: Vec::new() })
    }

    /// Sends the bytes of one request and reads the whole answer: its status and body.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.get_mut().write_all(request)?;
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| odd(&line))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().map_err(|_| odd(&line))?;
                } else if name.eq_ignore_ascii_case("transfer-encoding") {
                    return Err(odd("a chunked answer: these tests do not read one"));
                }
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok((status, &self.body))
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    post_like(address, "GET", path, b"")
}

/// One request on a connection of its own; the body as text.
pub fn post_like(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut connection = Connection::open(address)?;
    let (status, body) = connection.exchange(&request(method, path, body))?;
    Ok((status, String::from_utf8_lossy(body).into_owned()))
}

/// Asks until `address` answers 200, and says how long that took.
pub fn wait_for_200(address: SocketAddr, within: Duration) -> Result<Duration, String> {
    let start = Instant::now();
    loop {
        let answer = get(address, "/");
        if let Ok((200, _)) = answer {
            return Ok(start.elapsed());
        }
        if start.elapsed() > within {
            return Err(format!("{address} does not answer 200 within {within:?}: {answer:?}"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// An address nobody listens at now. Another process may take it; the range is large.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback has a free port")
}
