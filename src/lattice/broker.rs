//! Brokers for capabilities, over NATS: the host's own connection, and further ones that links ask for.
//!
//! `cli` makes one [`NatsBroker`] before there is a host, and [`Lattice::lend`](super::Lattice::lend) gives it the host's
//! connection. Further connections are shared by equal wishes and end with the last link that has one. It never speaks for
//! anybody by itself.

use std::{
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_nats::{HeaderMap, Message};
use futures_util::StreamExt;
use tokio::runtime::Handle;

use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        BoxFuture, Broker, BrokerConnection, BrokerServer,
        broker::{Forwarded, Listening, Parcel, Sink},
    },
    lock::{Mutex, MutexGuard},
    nats::{
        connection::{Answer, Connection, PROBES_PER_SILENCE},
        endpoint::{DEFAULT_PORT, Endpoint, Login, Timing, Tls},
        jetstream::{self, MESSAGE_TOO_LONG, OTHER_STREAM},
    },
    task,
    trust::Trust,
    wire::interface::BrokerMessage,
};

/// Connections that links may have beside the host's own. Each costs a socket, its buffers and, with TLS, some 60 KiB; it is
/// the host's links that ask for them, so this stops a mistake and not a use. One more is refused.
const MAX_CONNECTIONS: usize = 16;

/// How long a stream may take to acknowledge one message.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(5);

/// A way to NATS servers.
pub struct NatsBroker {
    handle: Handle,
    timing: Timing,
    host_key: String,
    own: OnceLock<Arc<dyn BrokerConnection>>,
    opened: Mutex<Vec<Opened>>,
}

/// A connection that links asked for.
struct Opened {
    server: BrokerServer,
    /// Its first server, without a login.
    url: String,
    /// Gone when no link uses it.
    bus: Weak<NatsBrokerConnection>,
    /// One that nobody uses and that was away then: the library tries for as long as the program runs and cannot be
    /// stopped, so it is held back, and used again by whoever asks for the same server.
    resting: Option<(Connection, Option<Arc<OwnedFd>>)>,
}

impl NatsBroker {
    /// A way to brokers for the host `host_key`, which scatters its attempts to connect.
    ///
    /// # Errors
    /// `Internal`: not inside the runtime of the main thread.
    pub fn new(timing: Timing, host_key: &str) -> Result<Arc<Self>> {
        let handle = Handle::try_current()
            .map_err(|_| Error::internal("the way to brokers must be made on the main thread's runtime"))?;
        Ok(Arc::new(Self {
            handle,
            timing,
            host_key: host_key.to_owned(),
            own: OnceLock::new(),
            opened: Mutex::default(),
        }))
    }

    /// Gives the host's own connection, on which subjects that begin with `reserved` are the lattice's. The first one stays.
    pub(super) fn lend(&self, connection: Connection, server: String, reserved: Vec<String>) {
        let bus = NatsBrokerConnection { connection, server, reserved: Some(reserved), rest: None, _ca: None };
        drop(self.own.set(Arc::new(bus)));
    }

    /// The connection to `server`, if a link has one or had.
    fn known(self: &Arc<Self>, server: &BrokerServer) -> Result<Option<Arc<NatsBrokerConnection>>> {
        let mut opened = self.opened();
        // Those that ended with their last link.
        opened.retain(|one| one.resting.is_some() || one.bus.strong_count() > 0);
        if let Some(one) = opened.iter_mut().find(|one| one.server == *server) {
            if let Some(bus) = one.bus.upgrade() {
                return Ok(Some(bus));
            }
            if let Some((connection, ca)) = one.resting.take() {
                connection.rest(false);
                let bus = Arc::new(self.bus(connection, ca, &one.url, server));
                one.bus = Arc::downgrade(&bus);
                return Ok(Some(bus));
            }
        }
        if opened.len() >= MAX_CONNECTIONS {
            return Err(Error::limit(format!(
                "links have named {MAX_CONNECTIONS} NATS servers or logins already: use fewer, or restart the host if \
                 those are of links long gone"
            )));
        }
        Ok(None)
    }

    fn bus(
        self: &Arc<Self>,
        connection: Connection,
        ca: Option<Arc<OwnedFd>>,
        url: &str,
        server: &BrokerServer,
    ) -> NatsBrokerConnection {
        NatsBrokerConnection {
            connection,
            server: url.to_owned(),
            reserved: None,

            rest: Some((Arc::downgrade(self), server.clone())),
            _ca: ca,
        }
    }

    async fn connect(self: Arc<Self>, server: BrokerServer) -> Result<Arc<dyn BrokerConnection>> {
        if let Some(bus) = self.known(&server)? {
            return Ok(bus);
        }
        let (endpoint, ca) = endpoint(&server)?;
        let mut timing = self.timing;
        if let Some(ping) = server.ping {
            timing.silence = ping * PROBES_PER_SILENCE;
        }
        let host_key = self.host_key.clone();
        let opening = self.handle.spawn(async move {
            let connection = Connection::open("messaging", &endpoint, &timing, &host_key).await?;
            Ok::<_, Error>((connection, endpoint.url()))
        });
        let (connection, url) = opening.await.context(Kind::Internal, "cannot open a connection")??;
        let bus = Arc::new(self.bus(connection, ca, &url, &server));
        self.opened().push(Opened { server, url, bus: Arc::downgrade(&bus), resting: None });
        Ok(bus)
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.opened.lock()
    }
}

impl Broker for Arc<NatsBroker> {
    fn own(&self) -> Option<Arc<dyn BrokerConnection>> {
        self.own.get().cloned()
    }

    fn open(&self, server: BrokerServer) -> BoxFuture<'static, Result<Arc<dyn BrokerConnection>>> {
        Box::pin(self.clone().connect(server))
    }
}

/// Refuses a server or login that no connection can be opened with, an authority that is none among them. Blocks.
///
/// # Errors
/// `Config`.
pub fn check(server: &BrokerServer) -> Result<()> {
    endpoint(server)?;
    match (&server.tls_ca_file, &server.tls_ca) {
        (Some(path), _) => Trust::with_file(path, "the link value `tls_ca_file`").map(drop),
        (None, Some(text)) => Trust::with_text(text.as_bytes(), "the link value `tls_ca`").map(drop),
        (None, None) => Ok(()),
    }
}

/// The server and login that a link asks for, and what must be held while the connection may be made.
fn endpoint(server: &BrokerServer) -> Result<(Endpoint, Option<Arc<OwnedFd>>)> {
    let login = Login::from_jwt_and_seed(&server.jwt, &server.seed)?;
    let mut tls = Tls::default();
    let mut held = None;
    if let Some(pem) = &server.tls_ca {
        let (path, file) = in_memory(pem)?;
        (tls.ca, held) = (Some(path), Some(Arc::new(file)));
    }
    if let Some(path) = &server.tls_ca_file {
        tls.ca = Some(path.clone());
    }
    tls.required = tls.ca.is_some();
    Ok((Endpoint::parse(&server.servers, DEFAULT_PORT, login, tls)?, held))
}

/// `text` as a file that is on no disk: the client library reads authorities from files alone. It lasts as long as its
/// descriptor.
fn in_memory(text: &str) -> Result<(PathBuf, OwnedFd)> {
    let failed = "cannot hold an authority in memory";
    let made = rustix::fs::memfd_create("tls_ca", rustix::fs::MemfdFlags::CLOEXEC).context(Kind::Internal, failed)?;
    let mut file = std::fs::File::from(made);
    file.write_all(text.as_bytes()).context(Kind::Internal, failed)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok((path, file.into()))
}

/// One connection, as capabilities see it.
struct NatsBrokerConnection {
    connection: Connection,
    server: String,
    reserved: Option<Vec<String>>,
    /// Where it goes when no link uses it any more; nowhere for the host's own.
    rest: Option<(Weak<NatsBroker>, BrokerServer)>,
    _ca: Option<Arc<OwnedFd>>,
}

impl Drop for NatsBrokerConnection {
    fn drop(&mut self) {
        let Some((broker, server)) = self.rest.take() else { return };
        // Connected, it ends by itself with its last user; if the line is lost in this very moment, it rests for ever.
        let away = !self.connection.is_connected();
        self.connection.rest(true);
        let Some(broker) = broker.upgrade() else { return };
        let mut opened = broker.opened();
        let Some(place) = opened.iter().position(|one| one.server == server && one.bus.strong_count() == 0) else {
            return;
        };
        if away {
            opened[place].resting = Some((self.connection.clone(), self._ca.clone()));
        } else {
            opened.remove(place);
        }
    }
}

impl BrokerConnection for NatsBrokerConnection {
    fn name(&self) -> String {
        self.server.clone()
    }

    fn reserved(&self) -> Option<Vec<String>> {
        self.reserved.clone()
    }

    fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    fn connected(&self) -> BoxFuture<'static, ()> {
        let connection = self.connection.clone();
        Box::pin(async move { connection.connected().await })
    }

    fn publish(&self, message: BrokerMessage) -> BoxFuture<'static, Result<()>> {
        let connection = self.connection.clone();
        Box::pin(
            async move { connection.publish_all(message.subject, message.reply_to, None, message.body.into()).await },
        )
    }

    fn request(&self, subject: String, body: Vec<u8>, timeout: Duration) -> BoxFuture<'static, Result<BrokerMessage>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            match connection.request(subject.clone(), None, body, timeout).await? {
                Answer::Message(message) => Ok(received(message)),
                Answer::Nobody => Err(Error::unavailable(format!("nobody listens on {subject}"))),
                Answer::Silence => {
                    Err(Error::timeout(format!("nobody answered on {subject} within {} ms", timeout.as_millis())))
                }
            }
        })
    }

    fn subscribe(
        &self,
        subject: String,
        queue_group: Option<String>,
        mut sink: Sink,
    ) -> BoxFuture<'static, Result<Listening>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let mut messages = connection.subscribe(subject, queue_group).await?;
            let listening = connection.spawn(async move {
                while let Some(message) = messages.next().await {
                    sink(received(message));
                }
            });
            Ok(Listening::new(listening))
        })
    }

    fn forward(&self, parcels: Vec<Parcel>) -> BoxFuture<'static, Forwarded> {
        let connection = self.connection.clone();
        Box::pin(async move { forward(&connection, parcels).await })
    }
}

/// Sends all of `parcels`, then waits for what the stream says of each.
async fn forward(connection: &Connection, parcels: Vec<Parcel>) -> Forwarded {
    let inbox = connection.inbox();
    let mut answers = match connection.subscribe(format!("{inbox}.*"), None).await {
        Ok(answers) => answers,
        Err(error) => return Forwarded { failure: Some(error), ..Forwarded::default() },
    };
    let mut failure = None;
    // Of each that was sent its subject and, once it is known, what became of it.
    let mut sent: Vec<(String, Option<Result<(), Refused>>)> = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", parcel.id.as_str());
        if let Some(stream) = &parcel.stream {
            headers.insert("Nats-Expected-Stream", stream.as_str());
        }
        let reply = Some(format!("{inbox}.{}", sent.len()));
        match connection.publish_all(parcel.subject.clone(), reply, Some(headers), parcel.body.into()).await {
            Ok(()) => sent.push((parcel.subject, None)),
            Err(error) => {
                failure = Some(error.context(format!("on {}", parcel.subject)));
                break;
            }
        }
    }
    let mut waited_for = sent.len();
    while waited_for > 0 {
        let answer = smol::future::or(task::within(ACKNOWLEDGE_PATIENCE, answers.next()), async {
            connection.disconnected().await;
            None
        });
        let Some(message) = answer.await.flatten() else { break };
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
        if let Some((subject, outcome)) = number.and_then(|number| sent.get_mut(number))
            && outcome.is_none()
        {
            *outcome = Some(acknowledged(subject, &message));
            waited_for -= 1;
        }
    }
    let mut forwarded = Forwarded::default();
    for (place, (subject, outcome)) in sent.into_iter().enumerate() {
        let outcome = outcome.unwrap_or_else(|| {
            let why = format!("the stream did not acknowledge a message on {subject} in time");
            Err(Refused { error: Error::unavailable(why), no_taker: false })
        });
        match (outcome, &forwarded.failure) {
            (Ok(()), None) => forwarded.stored += 1,
            (Ok(()), Some(_)) => forwarded.stored_later.push(place),
            (Err(refused), None) => (forwarded.failure, forwarded.no_taker) = (Some(refused.error), refused.no_taker),
            // One reason is enough; that one comes first.
            (Err(_), Some(_)) => {}
        }
    }
    forwarded.failure = forwarded.failure.or(failure);
    forwarded
}

/// Why a message was not stored.
struct Refused {
    error: Error,
    /// No stream, or not the one it must have, takes its subject.
    no_taker: bool,
}

/// What the stream says of the message on `subject`.
fn acknowledged(subject: &str, message: &Message) -> Result<(), Refused> {
    let answer = jetstream::acknowledged(message).map_err(|error| Refused { error, no_taker: false })?;
    let Some(reply) = answer else {
        let error = Error::unavailable(format!(
            "no JetStream stream takes {subject}: make one with this subject at the server that this host is connected to"
        ));
        return Err(Refused { error, no_taker: true });
    };
    let Some(error) = reply.error else { return Ok(()) };
    // More than the stream's own limit: it will never take it.
    let kind = if error.err_code == MESSAGE_TOO_LONG { Kind::Limit } else { Kind::Unavailable };
    let no_taker = error.err_code == OTHER_STREAM;
    let error = Error::new(kind, format!("the stream did not take a message on {subject}: {}", error.text()));
    Err(Refused { error, no_taker })
}

fn received(message: Message) -> BrokerMessage {
    BrokerMessage {
        subject: message.subject.to_string(),
        reply_to: message.reply.map(|reply| reply.to_string()),
        body: message.payload.to_vec(),
    }
}
