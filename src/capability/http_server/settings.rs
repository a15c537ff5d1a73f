//! What the host decides for every listener: limits, each with its default.
//!
//! `config` builds a [`Settings`]; link values (`link_values.rs`) choose among what it allows. No I/O here.

use std::{net::IpAddr, time::Duration};

/// How long a request may take where the link says nothing: the time-out of every call in the lattice
/// (`protocol/config.md`, `WASMCLOUD_RPC_TIMEOUT_MS`). The client then reads 504.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(2000);

/// Longest time a link may allow a request; a larger `timeout_ms` is refused. An hour is beyond every client seen, and
/// short enough that a forgotten request cannot hold its memory for ever.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Largest invocation that reaches an actor, bytes: what the router lets through. A request whose body would not fit is
/// answered with 413, whatever `max_content_len` says.
pub const DEFAULT_PAYLOAD_BYTES: usize = crate::actor::settings::PAYLOAD_BYTES;

/// Largest request body where the link does not set `max_content_len`, bytes. First-party servers say 100 MiB, which is
/// a fifth of the memory of a small board, and more than an invocation carries; a larger body is answered with 413.
pub const DEFAULT_MAX_BODY_BYTES: usize = DEFAULT_PAYLOAD_BYTES;

/// Largest `max_content_len` a link may ask for, bytes: as in the first-party server. A larger value is refused.
pub const MAX_CONTENT_LEN_LIMIT_BYTES: usize = 1024 * 1024 * 1024;

/// Request bodies of all listeners together, bytes: so many uploads at once cannot take the board's memory. A request
/// that would exceed it is answered with 503 and told to come again.
pub const DEFAULT_BODY_BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// Open connections of one listener. Each costs about 12 KiB and a file descriptor, so 256 stay under 4 MiB and far
/// below the usual limit of 1024 descriptors. One remote source has a quarter of them at most, and an eighth is kept for this
/// machine (`client_source`). At a limit the longest idle connection makes room; if none is idle, the newcomer is answered
/// with 503.
pub const DEFAULT_CONNECTIONS_MAX: usize = 256;

/// Requests served on one connection before it is closed politely, so that no client keeps its place for ever. A million:
/// a new connection costs a client as much as a few requests, so it never notices.
pub const DEFAULT_REQUESTS_PER_CONNECTION: u32 = 1_000_000;

/// Bytes of request line and headers together. Browsers with many cookies stay below; more is answered with 431.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Read and write buffer of a connection, bytes; the smallest that holds [`HEADER_BYTES_MAX`] with room for pipelining.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Time for a TLS handshake or for a whole request head from its first byte. Slower clients are cut off.
pub const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stay open between two requests. Longer idle ones are closed without a word, as HTTP allows.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Longest pause while a body or an answer is on its way. Longer ends the connection, a body with 408 first.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Slowest average speed of a body or an answer after the first [`DEFAULT_STALL_TIMEOUT`], bytes per second. A modem on
/// a bad day reaches it; a client that sends a byte now and then does not, and is cut off.
pub const DEFAULT_SLOWEST_BYTES_PER_SECOND: u64 = 256;

/// How long requests in flight may still take when their link goes or the provider stops. Then they are cancelled.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// How long a client that got through just before the host stops may take for its request. A second is many times what
/// one takes that was about to send it, and keeps one that says nothing from holding up the stop.
pub const DEFAULT_LATE_REQUEST: Duration = Duration::from_secs(1);

/// Limits of every listener of one HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time for a request where the link says nothing; see [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Largest invocation, bytes; see [`DEFAULT_PAYLOAD_BYTES`].
    pub payload_bytes: usize,
    /// Largest body where the link says nothing, bytes; see [`DEFAULT_MAX_BODY_BYTES`].
    pub max_body_bytes: usize,
    /// Bodies of all listeners together, bytes; see [`DEFAULT_BODY_BUDGET_BYTES`].
    pub body_budget_bytes: usize,
    /// Open connections of one listener; see [`DEFAULT_CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Requests on one connection; see [`DEFAULT_REQUESTS_PER_CONNECTION`].
    pub requests_per_connection: u32,
    /// Time for a request head; see [`DEFAULT_HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// Time between two requests; see [`DEFAULT_KEEP_ALIVE`].
    pub keep_alive: Duration,
    /// Longest pause of a body or an answer; see [`DEFAULT_STALL_TIMEOUT`].
    pub stall_timeout: Duration,
    /// Slowest average speed; see [`DEFAULT_SLOWEST_BYTES_PER_SECOND`].
    pub slowest_bytes_per_second: u64,
    /// Addresses beside loopback on which links that came over the lattice may listen, where those are confined; an
    /// unspecified one stands for all of its family.
    pub remote_listen: Vec<IpAddr>,
    /// Time for requests in flight on unlink and stop; see [`DEFAULT_DRAIN`].
    pub drain: Duration,
    /// Time for a request of a client that is connected when the host stops; see [`DEFAULT_LATE_REQUEST`].
    pub late_request: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            payload_bytes: DEFAULT_PAYLOAD_BYTES,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            body_budget_bytes: DEFAULT_BODY_BUDGET_BYTES,
            connections_max: DEFAULT_CONNECTIONS_MAX,
            requests_per_connection: DEFAULT_REQUESTS_PER_CONNECTION,
            head_timeout: DEFAULT_HEAD_TIMEOUT,
            keep_alive: DEFAULT_KEEP_ALIVE,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            slowest_bytes_per_second: DEFAULT_SLOWEST_BYTES_PER_SECOND,
            remote_listen: Vec::new(),
            drain: DEFAULT_DRAIN,
            late_request: DEFAULT_LATE_REQUEST,
        }
    }
}
