//! One link at work: what it listens to on its way to the actor, and what the actor says on its way to the broker.
//!
//! In: `subscribe` fills the inbox, `deliver` empties it, no more messages at once than the link lets. Out: straight to the
//! broker, or with an outbox into a stream; then a message is accepted only when the stream has acknowledged it or it is on
//! disk, and what waits on disk goes first, in order.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use event_listener::Event as Signal;
use smol::{Task, Timer, future, lock};

use super::{
    answers::Answers,
    inbox::Inbox,
    options::Options,
    outbox::Outbox,
    settings::MAX_PUBLISHING,
    subject::{Use, check},
};
use crate::{
    error::{Error, Kind, Result},
    host::{
        BrokerConnection, Call, Invoke,
        broker::{Forwarded, Listening, Parcel},
    },
    lock::Mutex,
    log, task,
    wire::{
        Entity, LinkDefinition, codec, id,
        interface::{BrokerMessage, BrokerRequest},
    },
};

/// What the actor is called with.
const HANDLE: &str = "MessageSubscriber.HandleMessage";

/// Wait before another attempt to subscribe, where the first one met a busy moment.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(200);

/// Wait before a message is offered again to an actor whose own queue is full.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long a stream may take to acknowledge a message before it goes to the outbox instead: less than an actor waits.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_millis(1500);

/// Messages of an outbox that are on their way at once: on a line with 100 ms there and back this is 320 a second.
const BATCH_MESSAGES: usize = 32;

/// Their bytes, beyond the first message: what a slow line carries in a second or two.
const BATCH_BYTES: u64 = 256 << 10;

/// Waits before what a stream did not take is sent again: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A link that is open.
pub struct Line {
    /// The link.
    pub link: Arc<LinkDefinition>,
    options: Options,
    connection: Arc<dyn BrokerConnection>,
    reserved: Option<Vec<String>>,
    invoke: Arc<dyn Invoke>,
    origin: Entity,
    inbox: Inbox,
    /// Where answers to messages that the actor got are awaited.
    answers: Answers,
    in_flight: AtomicUsize,
    finished: Signal,
    failed: AtomicU64,
    outbox: Option<Arc<Outbox>>,
    /// With an outbox, messages go one after another.
    turn: lock::Mutex<()>,
    publishing: AtomicUsize,
    /// Why the stream did not take what waits.
    problem: Mutex<String>,
    listening: Mutex<Vec<Task<()>>>,
    sending: Mutex<Option<Task<()>>>,
}

/// What a line is made of.
pub struct Parts {
    /// The link.
    pub link: Arc<LinkDefinition>,
    /// What it asks for.
    pub options: Options,
    /// Its broker.
    pub connection: Arc<dyn BrokerConnection>,
    /// The road to its actor.
    pub invoke: Arc<dyn Invoke>,
    /// The provider as actors see it.
    pub origin: Entity,
    /// Largest message an actor takes, bytes.
    pub payload_bytes: usize,
    /// What keeps messages.
    pub outbox: Option<Arc<Outbox>>,
}

/// Refuses what may not be listened to. `reserved` are the lattice's own subjects, where the connection is the host's.
///
/// # Errors
/// `Invalid` or `Denied`.
pub fn check_subscriptions(options: &Options, reserved: Option<&[String]>) -> Result<()> {
    options.subscriptions.iter().try_for_each(|one| check(&one.subject, Use::Listen, reserved))
}

impl Line {
    /// Opens the line and returns at once; whether there is a connection makes no difference.
    ///
    /// # Errors
    /// `Invalid` or `Denied`: a subscription that may not be.
    pub fn open(parts: Parts) -> Result<Arc<Self>> {
        let Parts { link, options, connection, invoke, origin, payload_bytes, outbox } = parts;
        let reserved = connection.reserved();
        check_subscriptions(&options, reserved.as_deref())?;
        let inbox =
            Inbox::new(&link.actor_id, &link.link_name, options.max_waiting, options.max_waiting_bytes, payload_bytes);
        let line = Arc::new(Self {
            link,
            options,
            connection,
            reserved,
            invoke,
            origin,
            inbox,
            answers: Answers::default(),
            in_flight: AtomicUsize::new(0),
            finished: Signal::new(),
            failed: AtomicU64::new(0),
            outbox,
            turn: lock::Mutex::new(()),
            publishing: AtomicUsize::new(0),
            problem: Mutex::default(),
            listening: Mutex::default(),
            sending: Mutex::default(),
        });
        if !line.options.subscriptions.is_empty() {
            let tasks = vec![task::spawn(line.clone().subscribe()), task::spawn(line.clone().deliver())];
            *line.listening.lock() = tasks;
        }
        if let Some(outbox) = line.outbox.clone() {
            *line.sending.lock() = Some(task::spawn(line.clone().send(outbox)));
        }
        Ok(line)
    }

    /// Takes no message in any more; those that wait are given up, those in the actor's hands go on.
    pub async fn quiet(&self) {
        let tasks = std::mem::take(&mut *self.listening.lock());
        for task in tasks {
            task.cancel().await;
        }
        let given_up = self.inbox.close();
        if given_up > 0 {
            log::warn!(
                "{given_up} messages that waited for their actor were given up with their link";
                actor_id = self.link.actor_id, link_name = self.link.link_name
            );
        }
    }

    /// Ends the line. Messages in the actor's hands are waited for as long as one may take; those in the outbox stay.
    pub async fn close(&self) {
        self.quiet().await;
        let handled = async {
            loop {
                let finished = self.finished.listen();
                if self.in_flight.load(Relaxed) == 0 {
                    return;
                }
                finished.await;
            }
        };
        task::within(self.options.timeout, handled).await;
        let sending = self.sending.lock().take();
        if let Some(sending) = sending {
            sending.cancel().await;
        }
        if let Some(outbox) = self.outbox.as_ref().filter(|outbox| !outbox.is_empty()) {
            log::info!(
                "{} messages stay in the outbox; they go on when the same link is made again", outbox.len();
                actor_id = self.link.actor_id, link_name = self.link.link_name
            );
        }
    }

    /// How it stands, for people.
    pub fn detail(&self) -> String {
        let inbox = self.inbox.count();
        let mut text =
            format!("{} {}", self.connection.name(), if self.connection.is_connected() { "connected" } else { "away" });
        let mut add = |what: &str, count: u64| {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        };
        add("subscriptions", self.options.subscriptions.len() as u64);
        add("waiting", inbox.waiting as u64);
        add("dropped", inbox.dropped);
        add("not handled", self.failed.load(Relaxed));
        if let Some(outbox) = &self.outbox {
            add("in the outbox", outbox.len() as u64);
            add("of the outbox given up", outbox.dropped());
        }
        let problem = self.problem.lock();
        if !problem.is_empty() {
            text.push_str(&format!(" ({problem})"));
        }
        text
    }

    // --- in ---

    /// Listens to everything the link asks for, for as long as this runs.
    async fn subscribe(self: Arc<Self>) {
        let mut listening: Vec<Listening> = Vec::new();
        for subscription in &self.options.subscriptions {
            loop {
                self.connection.connected().await;
                let line = self.clone();
                let sink = Box::new(move |message| line.inbox.offer(message));
                let asked = self
                    .connection
                    .subscribe(subscription.subject.clone(), subscription.queue_group.clone(), sink)
                    .await;
                match asked {
                    Ok(one) => {
                        listening.push(one);
                        break;
                    }
                    Err(error) => {
                        log::debug!("{} is not listened to yet: {error}", subscription.subject);
                        Timer::after(SUBSCRIBE_PAUSE).await;
                    }
                }
            }
        }
        let subjects: Vec<&str> = self.options.subscriptions.iter().map(|one| one.subject.as_str()).collect();
        log::info!(
            "listening to {} on {}", subjects.join(", "), self.connection.name();
            actor_id = self.link.actor_id, link_name = self.link.link_name
        );
        future::pending::<()>().await;
        // Held until here.
        drop(listening);
    }

    /// Hands messages to the actor, in the order in which they came.
    async fn deliver(self: Arc<Self>) {
        loop {
            let finished = self.finished.listen();
            if self.in_flight.load(Relaxed) >= self.options.max_in_flight {
                finished.await;
                continue;
            }
            let message = self.inbox.take().await;
            self.in_flight.fetch_add(1, Relaxed);
            let line = self.clone();
            // It ends by its own deadline, also when this line does not wait for it.
            task::spawn(async move {
                line.hand_over(message).await;
                line.in_flight.fetch_sub(1, Relaxed);
                line.finished.notify(usize::MAX);
            })
            .detach();
        }
    }

    async fn hand_over(&self, message: BrokerMessage) {
        if let Some(reply_to) = &message.reply_to {
            self.answers.expect(reply_to);
        }
        let deadline = Instant::now() + self.options.timeout;
        let handled = loop {
            let payload = match codec::encode(&message) {
                Ok(payload) => payload,
                Err(error) => break Err(error),
            };
            let call = Call {
                origin: self.origin.clone(),
                target: Entity::actor(self.link.actor_id.clone()),
                operation: HANDLE.to_owned(),
                payload,
                deadline,
                depth: 0,
                trace: None,
            };
            match self.invoke.invoke(call).await {
                // Others call the actor too. Its place in the queue is here.
                Err(error) if error.kind() == Kind::Busy && Instant::now() + BUSY_PAUSE < deadline => {
                    Timer::after(BUSY_PAUSE).await;
                }
                outcome => break outcome.map(drop),
            }
        };
        if let Err(error) = handled {
            self.failed.fetch_add(1, Relaxed);
            log::warn!(
                "a message was not handled: {error}";
                actor_id = self.link.actor_id, link_name = self.link.link_name, subject = message.subject
            );
        }
    }

    // --- out ---

    /// Says what the actor says.
    ///
    /// # Errors
    /// `Invalid`, `Denied`: the subject; `Unavailable`, `Limit`, `Busy`, `Storage`: it was neither said nor kept.
    pub async fn publish(self: &Arc<Self>, message: BrokerMessage) -> Result<()> {
        self.check(&message.subject)?;
        if let Some(reply_to) = &message.reply_to {
            self.check(reply_to)?;
        }
        match &self.outbox {
            // Whoever wants an answer wants it now, and a stream could not pass on where to. An answer is of use only to who
            // waits for it now: no stream takes it, and later nobody listens there.
            Some(outbox) if message.reply_to.is_none() && !self.answers.is_one(&message.subject) => {
                self.publish_for_sure(outbox, message).await
            }
            _ => self.connection.publish(message).await,
        }
    }

    /// Asks for the actor, until `deadline` at most.
    ///
    /// # Errors
    /// As [`Line::publish`]; `Timeout`.
    pub async fn request(&self, request: BrokerRequest, deadline: Instant) -> Result<BrokerMessage> {
        self.check(&request.subject)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = match request.timeout_ms {
            0 => left,
            millis => left.min(Duration::from_millis(u64::from(millis))),
        };
        self.connection.request(request.subject, request.body, timeout).await
    }

    fn check(&self, subject: &str) -> Result<()> {
        check(subject, Use::Say, self.reserved.as_deref())
    }

    /// Has `message` stored by a stream or by this host. What was begun comes to its end also when the actor is gone by then.
    async fn publish_for_sure(self: &Arc<Self>, outbox: &Arc<Outbox>, message: BrokerMessage) -> Result<()> {
        if self.publishing.fetch_add(1, Relaxed) >= MAX_PUBLISHING {
            self.publishing.fetch_sub(1, Relaxed);
            return Err(Error::busy(format!(
                "{MAX_PUBLISHING} messages of this link are being stored already: wait for one before the next"
            )));
        }
        let (line, outbox) = (self.clone(), outbox.clone());
        let (sender, outcome) = smol::channel::bounded(1);
        task::spawn(async move {
            let stored = line.store(&outbox, message).await;
            line.publishing.fetch_sub(1, Relaxed);
            // Nobody waits any more when the actor's time was over first.
            let _ = sender.try_send(stored);
        })
        .detach();
        outcome.recv().await.unwrap_or_else(|_| Err(Error::internal("a message was given up half stored")))
    }

    async fn store(&self, outbox: &Outbox, message: BrokerMessage) -> Result<()> {
        let parcel = Parcel {
            id: id::message_id()?,
            subject: message.subject,
            body: message.body,
            stream: outbox.stream().map(str::to_owned),
        };
        let _in_turn = self.turn.lock().await;
        if outbox.is_empty() && self.connection.is_connected() {
            let forwarded = task::within(ACKNOWLEDGE_PATIENCE, self.connection.forward(vec![parcel.clone()])).await;
            match forwarded.unwrap_or_default() {
                Forwarded { stored: 1.., .. } => return Ok(()),
                Forwarded { failure: Some(error), .. } if error.kind() == Kind::Limit => return Err(error),
                Forwarded { .. } => {}
            }
        }
        outbox.put(parcel).await
    }

    /// Sends what waits in the outbox whenever there is a connection, for ever.
    async fn send(self: Arc<Self>, outbox: Arc<Outbox>) {
        let mut pause = RETRY_PAUSES.0;
        let mut homeless = Homeless::default();
        loop {
            let filled = outbox.filled();
            if outbox.is_empty() {
                homeless = Homeless::default();
                filled.await;
                continue;
            }
            self.connection.connected().await;
            homeless.try_again(Instant::now());
            match self.send_some(&outbox, &mut homeless).await {
                // Nothing but messages that no stream takes.
                Ok(false) => {
                    let pause = async {
                        Timer::at(homeless.retry_at.unwrap_or_else(Instant::now)).await;
                    };
                    future::or(pause, filled).await;
                }
                Ok(true) => {
                    pause = RETRY_PAUSES.0;
                    if homeless.subjects.is_empty() {
                        homeless.tries = 0;
                        self.set_problem("");
                    }
                }
                Err(error) => {
                    if !self.connection.is_connected() {
                        // Not the stream's doing: it is asked as soon as the line is back.
                        pause = RETRY_PAUSES.0;
                    }
                    self.set_problem(error.text());
                    Timer::after(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
        }
    }

    /// Sends the oldest of what waits, and removes what a stream has acknowledged. Messages on a subject that no stream takes
    /// are passed over, in `homeless`, until they are tried again. Says whether there was anything to send.
    async fn send_some(&self, outbox: &Arc<Outbox>, homeless: &mut Homeless) -> Result<bool> {
        let (mut numbers, mut parcels) = (Vec::new(), Vec::new());
        let oldest = outbox.oldest(BATCH_MESSAGES, BATCH_BYTES, &homeless.numbers).await?;
        if oldest.is_empty() {
            return Ok(false);
        }
        for waiting in oldest {
            if homeless.subjects.contains(&waiting.parcel.subject) {
                homeless.numbers.insert(waiting.number);
                continue;
            }
            numbers.push(waiting.number);
            parcels.push(waiting.parcel);
        }
        if parcels.is_empty() {
            // There may be others behind these.
            return Ok(true);
        }
        let subjects: Vec<String> = parcels.iter().map(|parcel| parcel.subject.clone()).collect();
        let Forwarded { stored, failure, no_taker, stored_later } = self.connection.forward(parcels).await;
        let mut done: Vec<u64> = numbers[..stored].to_vec();
        // A stream has these too: sent again after its window for duplicates, they would be there twice.
        done.extend(stored_later.into_iter().filter_map(|place| numbers.get(place)));
        let mut outcome = Ok(true);
        match (failure, numbers.get(stored), subjects.get(stored)) {
            // It would stand before all others for ever.
            (Some(error), Some(number), Some(subject)) if error.kind() == Kind::Limit => {
                log::error!(
                    "a message of the outbox can never be sent and was given up: {error}";
                    actor_id = self.link.actor_id, subject = subject
                );
                self.failed.fetch_add(1, Relaxed);
                done.push(*number);
            }
            // The others go on; those on the same subject keep their order and wait with it.
            (Some(error), Some(number), Some(subject)) if no_taker => {
                homeless.add(*number, subject);
                self.set_problem(error.text());
            }
            (Some(error), ..) => outcome = Err(error),
            (None, ..) => {}
        }
        if !done.is_empty() {
            outbox.remove(&done).await?;
        }
        outcome
    }

    /// Says why messages wait, when that changes.
    fn set_problem(&self, text: &str) {
        let mut problem = self.problem.lock();
        if *problem == text {
            return;
        }
        if text.is_empty() {
            log::info!("the outbox is being sent"; actor_id = self.link.actor_id, link_name = self.link.link_name);
        } else {
            log::warn!(
                "the outbox waits: {text}"; actor_id = self.link.actor_id, link_name = self.link.link_name
            );
        }
        text.clone_into(&mut problem);
    }
}

/// Subjects that no stream takes, and the messages on them, until they are tried again.
#[derive(Default)]
struct Homeless {
    subjects: BTreeSet<String>,
    numbers: BTreeSet<u64>,
    /// When they are tried again.
    retry_at: Option<Instant>,
    /// How often in a row there were some.
    tries: u32,
}

impl Homeless {
    fn add(&mut self, number: u64, subject: &str) {
        self.subjects.insert(subject.to_owned());
        self.numbers.insert(number);
        if self.retry_at.is_none() {
            // Each time later than the time before, up to the longest pause.
            let pause = RETRY_PAUSES.0.saturating_mul(2_u32.saturating_pow(self.tries)).min(RETRY_PAUSES.1);
            self.tries = self.tries.saturating_add(1);
            self.retry_at = Some(Instant::now() + pause);
        }
    }

    /// Forgets them all when their time has come.
    fn try_again(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            *self = Self { tries: self.tries, ..Self::default() };
        }
    }
}
