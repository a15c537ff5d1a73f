//! Which server is tried next: the one that failed the least, drawn among equals.

/// Servers that are known at most, those that a cluster tells of included. More are not remembered.
use crate::lock::{Mutex, MutexGuard};
const MAX_TARGETS: usize = 32;

/// Longest address that a server may tell of another, bytes: a host name has at most 253, its port 6.
const MAX_ADDRESS_BYTES: usize = 260;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether it is spoken to only in private.
    pub tls: bool,
}

/// The servers of one connection.
pub(super) struct Pool(Mutex<Vec<Entry>>);

struct Entry {
    target: Target,
    failures: usize,
}

impl Pool {
    pub fn new(targets: Vec<Target>) -> Self {
        Self(Mutex::new(targets.into_iter().map(|target| Entry { target, failures: 0 }).collect()))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock()
    }

    /// The next server to try; `draw` chooses among equals.
    pub fn next(&self, draw: usize) -> Option<Target> {
        let entries = self.entries();
        let least = entries.iter().map(|entry| entry.failures).min()?;
        let equals: Vec<_> = entries.iter().filter(|entry| entry.failures == least).collect();
        Some(equals[draw % equals.len()].target.clone())
    }

    /// Notes how an attempt at `target` went.
    pub fn tried(&self, target: &Target, well: bool) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.target == *target) {
            entry.failures = if well { 0 } else { entry.failures + 1 };
        }
    }

    /// Notes other servers that `teller` told of. They are spoken to as privately as that one.
    pub fn learn(&self, urls: &[String], teller: &Target) {
        let mut entries = self.entries();
        for url in urls {
            if entries.len() >= MAX_TARGETS {
                return;
            }
            let Some(target) = read(url, teller.tls) else { continue };
            if !entries.iter().any(|entry| (&entry.target.host, entry.target.port) == (&target.host, target.port)) {
                entries.push(Entry { target, failures: 0 });
            }
        }
    }
}

/// `host:port` or `[address]:port`.
fn read(url: &str, tls: bool) -> Option<Target> {
    if url.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let (host, port) = url.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (bare.is_some() && byte == b':');
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && host.bytes().all(is_name)).then(|| Target { host: host.to_owned(), port, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str) -> Target {
        Target { host: host.into(), port: 4222, tls: false }
    }

    #[test]
    fn the_server_that_failed_the_least_is_next() {
        let pool = Pool::new(vec![target("a"), target("b")]);
        let first = pool.next(7).unwrap();
        pool.tried(&first, false);
        assert_ne!(pool.next(7).unwrap(), first);
        pool.tried(&pool.next(0).unwrap(), false);
        pool.tried(&first, true);
        assert_eq!(pool.next(3).unwrap(), first);
    }

    #[test]
    fn servers_that_are_told_of_are_read_strictly_and_bounded() {
        let pool = Pool::new(vec![target("a")]);
        let private = Target { tls: true, ..target("a") };
        let told =
            ["a:4222", "10.0.0.2:4222", "[::1]:5222", "x y:1", "b:0", "b:99999", "b", "http://c:80", ":1", "::1:5"];
        pool.learn(&told.map(str::to_owned), &private);
        let known: Vec<_> = pool.entries().iter().map(|entry| (entry.target.host.clone(), entry.target.tls)).collect();
        assert_eq!(known, [("a".to_owned(), false), ("10.0.0.2".to_owned(), true), ("::1".to_owned(), true)]);
        pool.learn(&(0..1000).map(|n| format!("h{n}:1")).collect::<Vec<_>>(), &private);
        assert_eq!(pool.entries().len(), MAX_TARGETS);
    }
}
