//! A server that answers each connection with prepared bytes, and a linked client to ask it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::{
    capability::http_client::{Settings, start_with},
    error::Result,
    host::{BoxFuture, Call, Capability, Invoke, ProviderContext},
    wire::{
        LinkDefinition, codec,
        interface::{HttpClientRequest, HttpResponse},
    },
};

/// Longest a test waits for what should come; nothing here takes a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The client calls no actors.
struct NoActors;

impl Invoke for NoActors {
    fn invoke(&self, _call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        unreachable!("the HTTP client calls no actors")
    }
}

/// A started and linked client.
pub struct Client {
    pub provider: Arc<dyn Capability>,
    pub link: Arc<LinkDefinition>,
}

/// A provider with `settings`, not linked yet.
pub fn provider(settings: Settings) -> Arc<dyn Capability> {
    let context = ProviderContext {
        public_key: "VPROVIDER".into(),
        link_name: "default".into(),
        configuration: None,
        invoke: Arc::new(NoActors),
    };
    start_with(context, settings)
}

/// A link with `values`.
pub fn link(values: &[(&str, &str)]) -> Arc<LinkDefinition> {
    Arc::new(LinkDefinition {
        actor_id: "MACTOR".into(),
        provider_id: "VPROVIDER".into(),
        link_name: "default".into(),
        contract_id: "wasmcloud:httpclient".into(),
        values: values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..LinkDefinition::default()
    })
}

/// A client that may ask this machine.
pub fn client() -> Client {
    client_with(Settings::default(), &[("allowed_hosts", "127.0.0.1,localhost")])
}

/// A client with settings and link values.
pub fn client_with(settings: Settings, values: &[(&str, &str)]) -> Client {
    let client = Client { provider: provider(settings), link: link(values) };
    smol::block_on(client.provider.link(Arc::clone(&client.link))).expect("the link opens");
    client
}

/// A request without headers and body.
pub fn get(url: impl Into<String>) -> HttpClientRequest {
    HttpClientRequest { method: "GET".into(), url: url.into(), ..HttpClientRequest::default() }
}

impl Client {
    /// Asks, with time enough.
    pub fn ask(&self, request: &HttpClientRequest) -> Result<HttpResponse> {
        self.ask_within(request, PATIENCE)
    }

    /// Asks, and gives up after `time`.
    pub fn ask_within(&self, request: &HttpClientRequest, time: Duration) -> Result<HttpResponse> {
        let call = Call {
            origin: Default::default(),
            target: Default::default(),
            operation: "HttpClient.Request".into(),
            payload: codec::encode(request).unwrap(),
            deadline: Instant::now() + time,
            depth: 1,
            trace: None,
        };
        let answer = smol::block_on(self.provider.call(Arc::clone(&self.link), call))?;
        codec::decode("answer", &answer)
    }
}

/// A server that gives its n-th request the n-th answer, then stops accepting.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts it; each answer goes out on a connection of its own, which is then closed.
    pub fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        thread::spawn(move || {
            for answer in answers {
                let Ok((mut socket, _)) = listener.accept() else { return };
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                if let Some(request) = read_request(&mut socket) {
                    noted.lock().unwrap().push(request);
                }
                let _ = socket.write_all(&answer);
            }
        });
        Self { address, seen }
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// An answer with a body and headers.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Reads one request with its body.
pub fn read_request(socket: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<_, _> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(Seen { line, headers, body })
}

/// A server whose every connection is handled by `handle`, on a thread of its own.
pub fn serve<F: Fn(TcpStream) + Send + Sync + 'static>(handle: F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || handle(socket));
        }
    });
    address
}
