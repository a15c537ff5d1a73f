//! What a host holds when it is at rest: tasks, threads, descriptors, subscriptions, memory. For tests that look for leaks.

use std::{collections::BTreeMap, io::Write, net::TcpStream};

use serde_json::Value;

use super::{
    host::Host,
    process::{self, Memory},
};

/// What a host holds when it is at rest.
#[derive(Debug)]
pub struct Held {
    /// Tasks of its executor.
    pub tasks: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open files and sockets.
    pub descriptors: usize,
    /// What it listens to, and its connections.
    pub subscriptions: BTreeMap<String, u32>,
    /// Its memory.
    pub memory: Memory,
}

/// What `host` with the key `id` holds now; its server is monitored at the port `monitor`.
pub fn held(host: &Host, id: &str, monitor: u16) -> Held {
    let pid = host.pid();
    // Counted first: the question for its status is a descriptor of its own for a moment.
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    Held {
        tasks: host.status().tasks,
        threads: process::threads(pid).expect("it lives"),
        descriptors,
        subscriptions: subscriptions(monitor, id),
        memory: process::memory(pid).expect("it lives"),
    }
}

/// What the host `id` listens to by the server's account, how often each. Inboxes are named anew at each connection.
fn subscriptions(monitor: u16, id: &str) -> BTreeMap<String, u32> {
    // HTTP/1.0: the server would cut a longer answer to a newer request into chunks.
    let mut stream = TcpStream::connect(("127.0.0.1", monitor)).expect("the server is monitored");
    stream.write_all(b"GET /connz?subs=1 HTTP/1.0\r\n\r\n").expect("it is asked");
    let answer = std::io::read_to_string(stream).expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("it has a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    let mut found = BTreeMap::new();
    for connection in body["connections"].as_array().expect("connections") {
        if connection["name"].as_str().is_some_and(|name| name.contains(id)) {
            *found.entry("a connection".to_owned()).or_insert(0) += 1;
            for subject in connection["subscriptions_list"].as_array().into_iter().flatten() {
                let subject = subject.as_str().expect("a subject");
                let subject = if subject.starts_with("_INBOX.") { "_INBOX" } else { subject };
                *found.entry(subject.to_owned()).or_insert(0) += 1;
            }
        }
    }
    found
}
