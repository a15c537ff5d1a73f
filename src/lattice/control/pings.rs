//! Answers to `ping.hosts`: each gets one, and a storm of them costs little more than its bytes.
//!
//! A ping is answered at a moment of the host's own, so that the answers of many boards do not arrive as one burst. What
//! comes until then is answered together, from one text. Pings take no place among the requests under way.

use std::{sync::Arc, time::Duration};

use async_nats::{Message, Subject};
use bytes::Bytes;

use super::Shared;
use crate::{
    error::Result,
    lattice::heartbeat,
    lock::{Mutex, MutexGuard},
    log,
    nats::backoff,
    task,
    wire::control::host::{PingReply, uptime_human},
};

/// A ping is answered within this time. A tenth of what the most hurried client waits.
const SPREAD: Duration = Duration::from_millis(200);

/// Pings that may wait for their answer; about 100 bytes each. What comes beyond is not answered: the client asks again, and
/// a host that is asked this much is found by any of the answers.
const MAX_WAITING: usize = 8192;

/// Longest subject for an answer, bytes: clients use some 50. A ping with a longer one is not answered.
const MAX_REPLY_BYTES: usize = 256;

/// Pings that wait for their answer.
#[derive(Default)]
pub struct Pings(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    replies: Vec<Subject>,
    /// A task is about to answer them.
    answering: bool,
    left_out: u64,
}

impl Pings {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock()
    }

    /// Takes those that wait; `None` when there are none, and then nobody is answering any more.
    fn take(&self) -> Option<Vec<Subject>> {
        let mut waiting = self.waiting();
        if waiting.left_out > 0 {
            log::warn!("{} pings were not answered: too many at once", waiting.left_out);
            waiting.left_out = 0;
        }
        waiting.answering = !waiting.replies.is_empty();
        waiting.answering.then(|| std::mem::take(&mut waiting.replies))
    }
}

/// Takes a ping in. Runs on the library's thread, so it only hands over.
pub fn take_in(shared: &Arc<Shared>, message: Message) {
    let Some(reply) = message.reply else { return };
    {
        let mut waiting = shared.pings.waiting();
        if waiting.replies.len() >= MAX_WAITING || reply.len() > MAX_REPLY_BYTES {
            waiting.left_out += 1;
            return;
        }
        // A copy: the message shares the memory of all that was read with it.
        waiting.replies.push(Subject::from(reply.to_string()));
        if std::mem::replace(&mut waiting.answering, true) {
            return;
        }
    }
    let shared = shared.clone();
    task::spawn(async move {
        smol::Timer::after(backoff::phase(&shared.host_id, SPREAD)).await;
        while let Some(replies) = shared.pings.take() {
            if let Err(error) = answer(&shared, replies).await {
                log::debug!("pings were not answered: {error}");
            }
            heartbeat::beat_after_ping(&shared).await;
        }
    })
    .detach();
}

async fn answer(shared: &Shared, replies: Vec<Subject>) -> Result<()> {
    let body = write(shared)?;
    for reply in replies {
        shared.control.publish(reply.to_string(), body.clone()).await?;
    }
    Ok(())
}

fn write(shared: &Shared) -> Result<Bytes> {
    let host = &shared.host;
    let labels = host.labels();
    let uptime = host.uptime().as_secs();
    let (control, rpc) = (shared.settings.control.url(), shared.settings.rpc.url());
    let answer = PingReply {
        id: &shared.host_id,
        issuer: shared.anti_forgery.public_key(),
        labels: &labels,
        friendly_name: host.friendly_name(),
        uptime_seconds: uptime,
        uptime_human: &uptime_human(uptime),
        version: env!("CARGO_PKG_VERSION"),
        cluster_issuers: &shared.issuers,
        js_domain: shared.settings.js_domain.as_deref(),
        ctl_host: &control,
        prov_rpc_host: &rpc,
        rpc_host: &rpc,
        lattice_prefix: shared.subjects.lattice(),
        lattice: shared.subjects.lattice(),
    };
    let mut body = Vec::new();
    answer.write(&mut body)?;
    Ok(body.into())
}
