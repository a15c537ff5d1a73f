//! The connection of one link to its Redis: opened when it is needed, shared by all calls, replaced when it breaks.
//!
//! A command is sent twice only if doing it twice is the same as doing it once. For the others a connection that was quiet
//! for a while is tried first, so that a Redis that was restarted meanwhile costs no failed call; what then fails may or
//! may not have been done, and its caller is told so.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use latticed::{
    error::{Error, Result},
    lock::Mutex as Held,
    log, task,
};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection};
use smol::lock::Mutex;

/// After this much silence a connection is tried before a command that must not be sent twice. A second costs a busy link
/// nothing.
const QUIET: Duration = Duration::from_secs(1);

/// Pause after a failed attempt to connect during which calls are answered with its reason at once. A quarter of a second:
/// a burst of calls makes one attempt, and a Redis that is back is found soon.
const PAUSE: Duration = Duration::from_millis(250);

/// Longest URL, bytes.
const MAX_URL_BYTES: usize = 2048;

/// Whether a command may be sent a second time when the first is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    /// Doing it twice is the same as once.
    Same,
    /// It is not.
    Differs,
}

/// The way to one Redis.
pub struct RedisLink {
    client: Client,
    /// Host and port, for error texts; never a login.
    address: String,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, Error)>,
}

struct Open {
    connection: MultiplexedConnection,
    heard: Held<Instant>,
}

impl Open {
    fn quiet_for(&self) -> Duration {
        self.heard.lock().elapsed()
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        let answer = command.query_async(&mut connection).await?;
        *self.heard.lock() = Instant::now();
        Ok(answer)
    }
}

impl RedisLink {
    /// The way to `url`; nothing is connected yet. Every question is answered within `timeout`, if with an error.
    ///
    /// # Errors
    /// [`Kind::Config`](latticed::error::Kind::Config), without the URL, which may hold a password.
    pub fn new(url: &str, timeout: Duration) -> Result<Self> {
        let refused = |why: &str| Error::config(format!("URL cannot be used: {why}; write redis://host:port/"));
        if url.len() > MAX_URL_BYTES {
            return Err(refused(&format!("it has {} bytes, at most {MAX_URL_BYTES} are read", url.len())));
        }
        let client = Client::open(url.trim()).map_err(|cause| refused(cause.category()))?;
        let address = client.get_connection_info().addr().to_string();
        Ok(Self { client, address, timeout, state: Mutex::default() })
    }

    /// Asks whether Redis is there.
    pub async fn ping(&self) -> Result<()> {
        self.ask::<()>(&redis::cmd("PING"), Twice::Same).await
    }

    /// Sends `command` and reads its answer.
    ///
    /// # Errors
    /// Redis refuses it, its answer is not what the contract has, or there is no Redis.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd, twice: Twice) -> Result<T> {
        self.soon(self.ask_patiently(command, twice)).await
    }

    async fn ask_patiently<T: FromRedisValue>(&self, command: &Cmd, twice: Twice) -> Result<T> {
        let mut open = self.open().await?;
        if twice == Twice::Differs && open.quiet_for() > QUIET && open.ask::<()>(&redis::cmd("PING")).await.is_err() {
            self.forget(&open).await;
            open = self.open().await?;
        }
        let mut answer = open.ask(command).await;
        if twice == Twice::Same && answer.as_ref().is_err_and(is_lost) {
            self.forget(&open).await;
            open = self.open().await?;
            answer = open.ask(command).await;
        }
        match answer {
            Ok(answer) => Ok(answer),
            Err(cause) if is_lost(&cause) => {
                self.forget(&open).await;
                let doubt = if twice == Twice::Differs { "; whether it was done is not known" } else { "" };
                Err(Error::unavailable(format!("Redis at {} did not answer: {cause}{doubt}", self.address)))
            }
            Err(cause) => Err(Error::invalid(format!("Redis at {}: {cause}", self.address))),
        }
    }

    /// The open connection, or a new one. Calls that come while one is being opened wait for it.
    async fn open(&self) -> Result<Arc<Open>> {
        let mut state = self.state.lock().await;
        if let Some(open) = &state.open {
            return Ok(open.clone());
        }
        if let Some((when, why)) = &state.failed
            && when.elapsed() < PAUSE
        {
            return Err(why.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            // Ours covers connecting too.
            .set_response_timeout(None);
        let opened = self.soon(async {
            self.client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|cause| Error::unavailable(format!("cannot connect to Redis at {}: {cause}", self.address)))
        });
        match opened.await {
            Ok(connection) => {
                log::info!("connected to Redis at {}", self.address);
                let open = Arc::new(Open { connection, heard: Held::new(Instant::now()) });
                (state.open, state.failed) = (Some(open.clone()), None);
                Ok(open)
            }
            Err(error) => {
                if state.failed.as_ref().is_none_or(|(_, before)| *before != error) {
                    log::warn!("{error}");
                }
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Replaces `broken` at the next question, unless that has happened already.
    async fn forget(&self, broken: &Arc<Open>) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, broken)) {
            log::warn!("lost the connection to Redis at {}", self.address);
            state.open = None;
        }
    }

    /// Waits no longer than a call may. A connection that keeps its calls waiting is given up.
    async fn soon<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match task::within(self.timeout, future).await {
            Some(outcome) => outcome,
            None => {
                if let Some(mut state) = self.state.try_lock() {
                    state.open = None;
                }
                Err(Error::timeout(format!(
                    "Redis at {} did not answer within {} ms",
                    self.address,
                    self.timeout.as_millis()
                )))
            }
        }
    }
}

fn is_lost(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_io_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_passwords_not_shown() {
        let link = |url: &str| RedisLink::new(url, Duration::from_secs(1));
        for (url, address) in [
            ("redis://127.0.0.1:6379", "127.0.0.1:6379"),
            ("redis://me:swordfish@redis.example:7000/3", "redis.example:7000"),
            (" redis://localhost/\n", "localhost:6379"),
            ("rediss://redis.example", "redis.example:6379"),
        ] {
            assert_eq!(link(url).map(|link| link.address).unwrap(), address, "{url}");
        }
        for url in ["", "http://x", "me:swordfish@host", "redis://me:swordfish@host:x", "redis://"] {
            let error = link(url).map(|link| link.address).expect_err(url);
            assert!(error.text().starts_with("URL cannot be used") && !error.text().contains("swordfish"), "{error}");
        }
        assert!(link(&format!("redis://{}", "x".repeat(MAX_URL_BYTES))).is_err());
    }
}
