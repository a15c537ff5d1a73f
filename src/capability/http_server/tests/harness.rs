//! A running server on a port of the kernel's choice, an actor made of a closure, and a client that sends any bytes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, Once},
    thread,
    time::Duration,
};

use crate::{
    capability::http_server::{Settings, start_with},
    error::Result,
    host::{BoxFuture, Call, Capability, Invoke, ProviderContext},
    task,
    wire::{LinkDefinition, codec, interface::HttpRequest, interface::HttpResponse},
};

/// Longest a test waits for bytes that should come; nothing here takes a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The actor of these tests.
pub const ACTOR: &str = "MACTOR";

type Handler = dyn Fn(HttpRequest, Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync;

/// An actor made of a closure, behind the road that every invocation takes.
struct ClosureActor {
    handler: Box<Handler>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Invoke for ClosureActor {
    fn invoke(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        self.calls.lock().unwrap().push(Call { payload: Vec::new(), ..call.clone() });
        let request = codec::decode("request", &call.payload).expect("the server sends an HttpRequest");
        (self.handler)(request, call)
    }
}

/// A road on which nobody travels.
pub struct Nobody;

impl Invoke for Nobody {
    fn invoke(&self, _call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        unreachable!("no request is made")
    }
}

/// A started provider and what its actor saw.
pub struct Server {
    pub provider: Arc<dyn Capability>,
    pub calls: Arc<Mutex<Vec<Call>>>,
}

/// Threads that run the executor, so that tests may block on sockets.
pub fn run_executor() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for _ in 0..2 {
            thread::spawn(|| task::block_on(std::future::pending::<()>()));
        }
    });
}

impl Server {
    /// A server whose actor answers with `handler`, not linked yet.
    pub fn start<F, A>(settings: Settings, handler: F) -> Self
    where
        F: Fn(HttpRequest, Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<HttpResponse>> + Send + 'static,
    {
        Self::start_raw(settings, move |request, call| {
            let answer = handler(request, call);
            Box::pin(async move { codec::encode(&answer.await?) })
        })
    }

    /// The same with the answer's bytes given by `handler`.
    pub fn start_raw<F>(settings: Settings, handler: F) -> Self
    where
        F: Fn(HttpRequest, Call) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync + 'static,
    {
        run_executor();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let actor = ClosureActor { handler: Box::new(handler), calls: Arc::clone(&calls) };
        let context = ProviderContext {
            public_key: "VPROVIDER".into(),
            link_name: "default".into(),
            configuration: None,
            invoke: Arc::new(actor),
        };
        Self { provider: start_with(context, settings), calls }
    }

    /// Links the actor with `values` and a port of the kernel's choice, and answers where it listens.
    pub fn link(&self, values: &[(&str, &str)]) -> SocketAddr {
        let link = link(values);
        smol::block_on(self.provider.link(Arc::new(link))).expect("the link opens");
        self.address()
    }

    /// Where the only link listens.
    pub fn address(&self) -> SocketAddr {
        let detail = self.provider.detail();
        let address = detail.rsplit_once("//").expect("a URL").1;
        address.parse().expect("an address")
    }
}

/// A server with default settings whose actor answers every request with what it was asked.
pub fn echo() -> Server {
    Server::start(Settings::default(), |request, _| async move {
        Ok(HttpResponse { status_code: 200, header: BTreeMap::new(), body: describe(&request) })
    })
}

/// A request in one line for comparison: method, path, query, body.
pub fn describe(request: &HttpRequest) -> Vec<u8> {
    let mut text = format!("{} {} {} ", request.method, request.path, request.query_string).into_bytes();
    text.extend_from_slice(&request.body);
    text
}

/// A link of [`ACTOR`] with `values`, listening on a port of the kernel's choice unless they say otherwise.
pub fn link(values: &[(&str, &str)]) -> LinkDefinition {
    let mut values: BTreeMap<String, String> =
        values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if !values.keys().any(|key| key.eq_ignore_ascii_case("address") || key.eq_ignore_ascii_case("port")) {
        values.insert("address".into(), "127.0.0.1:0".into());
    }
    LinkDefinition {
        actor_id: ACTOR.into(),
        provider_id: "VPROVIDER".into(),
        link_name: "default".into(),
        contract_id: "wasmcloud:httpserver".into(),
        values,
        ..LinkDefinition::default()
    }
}

/// A client that sends exactly what it is told.
pub struct Client<S: Read + Write = TcpStream> {
    pub socket: S,
    unread: Vec<u8>,
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }
}

impl Client {
    /// Connects to `address`.
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::over(socket)
    }

    /// Sends nothing more, and goes on reading.
    pub fn shut_down(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Write).expect("it is connected");
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over a stream that is connected already.
    pub fn over(socket: S) -> Self {
        Self { socket, unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the server takes the bytes");
    }

    /// Sends a whole request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request);
        self.reply().expect("an answer")
    }

    /// Reads one answer; `None` if the server closes instead.
    pub fn reply(&mut self) -> Option<Reply> {
        self.read_reply(false)
    }

    /// Reads one answer to a HEAD request, which has no body whatever its headers say.
    pub fn reply_to_head(&mut self) -> Option<Reply> {
        self.read_reply(true)
    }

    fn read_reply(&mut self, to_head: bool) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_end).collect()).expect("ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").expect("name: value"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        if to_head || status < 200 || status == 204 || status == 304 {
            return Some(reply);
        }
        let length: usize = reply.header("content-length").expect("a length").parse().unwrap();
        while self.unread.len() < length {
            assert!(self.fill(), "the body ended early");
        }
        reply.body = self.unread.drain(..length).collect();
        Some(reply)
    }

    /// Whether the server closes now, without another word.
    pub fn closed(&mut self) -> bool {
        self.unread.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                true
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(cause) => panic!("no answer: {cause}"),
        }
    }
}
