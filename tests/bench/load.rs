//! Load over HTTP: kept-alive connections, several requests in flight, nothing clever.

use std::{
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    http::{Connection, request},
    process,
};

/// Connections of one load. More than the host has cores, fewer than its limits.
pub const CONNECTIONS: usize = 8;

/// What one load came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Requests answered per second.
    pub per_second: f64,
    /// Processor time the server took for one, µs.
    pub cpu_micros: f64,
}

/// Puts `GET /` on `address` for `time`, and looks what that costs the process `pid`. Every answer must be 200.
pub fn put_on(address: SocketAddr, pid: u32, time: Duration) -> io::Result<Outcome> {
    let before = process::cpu(pid)?;
    let start = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| thread::spawn(move || client(address, start + time))).collect();
    let mut answers = 0;
    for client in clients {
        answers += client.join().expect("a client does not panic")?;
    }
    let elapsed = start.elapsed();
    let cpu = process::cpu(pid)? - before;
    Ok(Outcome {
        per_second: f64::from(answers) / elapsed.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / f64::from(answers),
    })
}

fn client(address: SocketAddr, end: Instant) -> io::Result<u32> {
    let request = request("GET", "/", b"");
    let mut connection = Connection::open(address)?;
    let mut answers = 0;
    while Instant::now() < end {
        let (status, body) = connection.exchange(&request)?;
        if status != 200 {
            return Err(io::Error::other(format!("status {status}: {}", String::from_utf8_lossy(body))));
        }
        answers += 1;
    }
    Ok(answers)
}
