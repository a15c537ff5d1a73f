//! A client that keeps count of every answer it gets, for tests in which requests get lost and must not be answered twice.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use async_nats_031::Client;
use futures_util::StreamExt;
use serde_json::Value;

use super::nats::PATIENCE;

/// How long an answer is waited for. What comes later counts as an answer all the same, only nobody waits any more.
pub const ASK: Duration = Duration::from_secs(3);

/// A client that knows what it asked and every answer to it.
pub struct Asker {
    /// The connection.
    pub nats: Client,
    inbox: String,
    /// Each request by its number: its subject, how many may answer, and who did.
    asked: RefCell<Vec<Asked>>,
}

struct Asked {
    subject: String,
    answers_at_most: usize,
    answers: Vec<Vec<u8>>,
}

impl Asker {
    /// A client on `nats`.
    pub fn new(nats: Client) -> Self {
        let inbox = nats.new_inbox();
        Self { nats, inbox, asked: RefCell::default() }
    }

    /// Gathers answers, for as long as it is polled.
    pub async fn listen(&self) {
        let mut answers = self.nats.subscribe(format!("{}.*", self.inbox)).await.expect("it can listen");
        while let Some(message) = answers.next().await {
            // The server's word that nobody listens is no answer.
            if message.status.is_some() {
                continue;
            }
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
            let number = number.expect("it is the number of a request");
            self.asked.borrow_mut()[number].answers.push(message.payload.to_vec());
        }
    }

    /// Asks, and waits for the first answer as long as clients do.
    pub async fn ask(&self, subject: String, body: Vec<u8>, answers_at_most: usize) -> Option<Vec<u8>> {
        let number = self.asked.borrow().len();
        self.asked.borrow_mut().push(Asked { subject: subject.clone(), answers_at_most, answers: Vec::new() });
        let until = Instant::now() + ASK;
        let sent = self.nats.publish_with_reply(subject, format!("{}.{number}", self.inbox), body.into());
        tokio::time::timeout(ASK, sent).await.ok()?.ok()?;
        while Instant::now() < until {
            if let Some(answer) = self.asked.borrow()[number].answers.first() {
                return Some(answer.clone());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Asks until it is answered, as an operator does whose command got lost. What is asked here may be asked twice.
    async fn insist(&self, subject: String, body: Value) -> Value {
        let start = Instant::now();
        loop {
            if let Some(answer) = self.ask(subject.clone(), body.to_string().into_bytes(), 1).await {
                return serde_json::from_slice(&answer).expect("answers are JSON");
            }
            assert!(start.elapsed() < 2 * PATIENCE, "{subject} is not answered: {body}");
        }
    }

    /// Asks for a change until it is accepted.
    pub async fn command(&self, subject: String, body: Value) {
        let ack = self.insist(subject.clone(), body.clone()).await;
        // A lost ack makes the second try find that it was done.
        let done = ack["error"].as_str().is_some_and(|error| error.contains("already running"));
        assert!(ack["accepted"] == true || done, "{subject} {body}: {ack}");
    }

    /// Requests that were answered by more than were asked.
    pub fn answered_too_often(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let often = asked.iter().filter(|one| one.answers.len() > one.answers_at_most);
        often.map(|one| format!("{} by {}", one.subject, one.answers.len())).collect()
    }
}
