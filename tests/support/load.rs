//! A steady stream of HTTP requests beside whatever a test does, and what became of each.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::http::{Connection, request};

/// Requests under way. Ends when dropped or asked for its outcome.
pub struct HttpLoad {
    ended: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<Result<String, String>>>>,
    start: Instant,
}

/// What became of a load.
pub struct Outcome {
    /// For each connection its answers in order; an error's text where there was no answer with status 200.
    pub answers: Vec<Vec<Result<String, String>>>,
    /// How long it lasted.
    pub lasted: Duration,
}

impl Outcome {
    /// Requests made.
    pub fn requests(&self) -> usize {
        self.answers.iter().map(Vec::len).sum()
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests() as f64 / self.lasted.as_secs_f64()
    }

    /// Those that failed.
    pub fn failures(&self) -> Vec<&String> {
        self.answers.iter().flatten().filter_map(|answer| answer.as_ref().err()).collect()
    }
}

impl HttpLoad {
    /// Posts `body` to `/` of `address`, `per_second` times over `connections` connections that are kept.
    pub fn start(address: SocketAddr, body: &'static [u8], per_second: u32, connections: u32) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let period = Duration::from_secs(1) * connections / per_second;
        let workers = (0..connections).map(|number| {
            let ended = ended.clone();
            thread::spawn(move || {
                let mut answers = Vec::new();
                let bytes = request("POST", "/", body);
                let mut connection = None;
                let mut next = Instant::now() + period * number / connections;
                while !ended.load(SeqCst) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += period;
                    answers.push(one(&mut connection, address, &bytes));
                }
                answers
            })
        });
        Self { workers: workers.collect(), ended, start: Instant::now() }
    }

    /// Ends it.
    pub fn end(mut self) -> Outcome {
        self.ended.store(true, SeqCst);
        let answers = self.workers.drain(..).map(|worker| worker.join().expect("workers do not panic")).collect();
        Outcome { answers, lasted: self.start.elapsed() }
    }
}

impl Drop for HttpLoad {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
    }
}

fn one(kept: &mut Option<Connection>, address: SocketAddr, bytes: &[u8]) -> Result<String, String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).map_err(|error| format!("cannot connect: {error}"))?,
    };
    let answer = match connection.exchange(bytes).map_err(|error| error.to_string())? {
        (200, body) => Ok(String::from_utf8_lossy(body).into_owned()),
        (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(body))),
    };
    *kept = Some(connection);
    answer
}
