//! The counter guest behind HTTP, as whoever asks it sees it.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{host::Host, http, nats::PATIENCE};

/// The count that the counter answers.
pub fn count(address: SocketAddr) -> Result<i64, String> {
    let (status, body) = http::get(address, "/").map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_str(&body).map_err(|_| body.clone())?;
    if status == 200 { answer["counter"].as_i64().ok_or(body) } else { Err(body) }
}

/// Asks until the counter on `host` answers, and what it answered.
pub fn first_count(host: &Host, address: SocketAddr) -> i64 {
    let end = Instant::now() + PATIENCE;
    loop {
        match count(address) {
            Ok(count) => return count,
            Err(error) => assert!(Instant::now() < end, "{error}: {}", host.output()),
        }
        thread::sleep(Duration::from_millis(50));
    }
}
