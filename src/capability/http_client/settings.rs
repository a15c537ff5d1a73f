//! What the host decides for requests of all actors together: limits, each with its default.

use std::time::Duration;

use crate::{actor::settings::PAYLOAD_BYTES, allowed_hosts::AllowedHosts};

/// Requests at once. Each holds a blocking thread and its bodies, so eight stay under 80 MiB at the worst. More wait.
pub const DEFAULT_CONCURRENT_MAX: usize = 8;

/// Requests that may wait for one of those places. More are refused at once, which tells an actor to slow down.
pub const DEFAULT_WAITING_MAX: usize = 64;

/// Largest body an actor may send, bytes: what a host call carries. A larger one is refused before anything is sent.
pub const DEFAULT_REQUEST_BYTES_MAX: usize = PAYLOAD_BYTES;

/// Largest body an actor may be answered with, bytes: what a host call's answer carries. Reading stops there with an
/// error; the actor gets no half answer.
pub const DEFAULT_RESPONSE_BYTES_MAX: usize = PAYLOAD_BYTES;

/// Largest response head, bytes. More is refused.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Time for a TCP connection and its TLS handshake. Then the next address of the host is tried, or the request fails.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a whole request with its redirects, even where the call's deadline would allow more.
pub const DEFAULT_TOTAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Redirects followed before giving up; browsers allow twenty, but a board pays for each.
pub const DEFAULT_REDIRECTS_MAX: u32 = 5;

/// Open connections kept for the next request, for each link: enough to spare a handshake to a caller in a loop.
pub const IDLE_CONNECTIONS_MAX: usize = 2;

/// Read and write buffer of a connection, bytes. The read buffer must hold a whole response head.
pub const BUFFER_BYTES: usize = RESPONSE_HEAD_BYTES_MAX;

/// Limits of one HTTP client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests at once; see [`DEFAULT_CONCURRENT_MAX`].
    pub concurrent_max: usize,
    /// Requests waiting; see [`DEFAULT_WAITING_MAX`].
    pub waiting_max: usize,
    /// Request body, bytes; see [`DEFAULT_REQUEST_BYTES_MAX`].
    pub request_bytes_max: usize,
    /// Response body, bytes; see [`DEFAULT_RESPONSE_BYTES_MAX`].
    pub response_bytes_max: usize,
    /// Time to connect; see [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// Time in all; see [`DEFAULT_TOTAL_TIMEOUT`].
    pub total_timeout: Duration,
    /// Redirects; see [`DEFAULT_REDIRECTS_MAX`].
    pub redirects_max: u32,
    /// Where links that came over the lattice may lead at most, on a board that confines those.
    pub remote_allow: AllowedHosts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrent_max: DEFAULT_CONCURRENT_MAX,
            waiting_max: DEFAULT_WAITING_MAX,
            request_bytes_max: DEFAULT_REQUEST_BYTES_MAX,
            response_bytes_max: DEFAULT_RESPONSE_BYTES_MAX,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            total_timeout: DEFAULT_TOTAL_TIMEOUT,
            redirects_max: DEFAULT_REDIRECTS_MAX,
            remote_allow: AllowedHosts::default(),
        }
    }
}
