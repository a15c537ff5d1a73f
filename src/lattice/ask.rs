//! One call of an actor wherever it runs in the lattice, for the command line; and which actor a name means.

use std::time::Duration;

use serde::Deserialize;

use super::{gather, settings::Settings};
use crate::{
    claims::AntiForgery,
    error::{Error, Result},
    nats::{
        bodies::Bodies,
        calls::{read_answer, seal},
        connection::Answer,
    },
    wire::{
        Entity, Invocation,
        json::{self, null_is_default},
        names::{self, Candidate},
        subject::Subjects,
    },
};

/// Who calls, as every host accepts a call from a command line (`protocol/invocation.md §3`).
const ORIGIN: &str = "__WASH__";

/// Longest list of claims that is read, bytes: what a NATS server lets through unless it is told otherwise.
const MAX_CLAIMS_BYTES: usize = 1 << 20;

/// The key of the actor that `word` means (call alias, name or the beginning of a key), as the hosts of the lattice know it.
///
/// # Errors
/// [`Kind::Unavailable`](crate::error::Kind::Unavailable): no server, or no host;
/// [`Kind::NotFound`](crate::error::Kind::NotFound): no actor is called so;
/// [`Kind::Conflict`](crate::error::Kind::Conflict): several actors are.
pub async fn resolve(settings: &Settings, word: &str, timeout: Duration) -> Result<String> {
    #[derive(Deserialize)]
    struct Claims {
        claims: Vec<Record>,
    }
    /// The names of either generation of hosts.
    #[derive(Deserialize)]
    struct Record {
        #[serde(default, alias = "subject", deserialize_with = "null_is_default")]
        sub: String,
        #[serde(default, deserialize_with = "null_is_default")]
        call_alias: String,
        #[serde(default, deserialize_with = "null_is_default")]
        name: String,
    }
    let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
    let connection = gather::reach(settings, "claims").await?;
    let claims = match connection.request(subjects.claims(), None, "", timeout).await? {
        Answer::Message(message) => json::read::<Claims>("the lattice's claims", &message.payload, MAX_CLAIMS_BYTES)?,
        Answer::Nobody | Answer::Silence => {
            return Err(Error::unavailable(format!(
                "no host of lattice {} says which actor {word} is; `latticed hosts` lists the hosts",
                settings.lattice
            )));
        }
    };
    let actors = claims.claims.iter().filter(|record| record.sub.starts_with('M'));
    let candidates: Vec<Candidate<'_>> =
        actors.map(|record| Candidate { key: &record.sub, name: &record.name, alias: &record.call_alias }).collect();
    names::pick(word, &candidates)?.map(str::to_owned).ok_or_else(|| {
        Error::not_found(format!(
            "no actor of lattice {} has the call alias or name {word}: name it by its key (M…)",
            settings.lattice
        ))
    })
}

/// Calls `operation` of the actor with the key `actor` and answers its response body. `timeout` is for the answer alone;
/// reaching a server has its own.
///
/// # Errors
/// [`Kind::Unavailable`](crate::error::Kind::Unavailable): no server, or no host runs the actor;
/// [`Kind::Timeout`](crate::error::Kind::Timeout): no answer in time; what the other side refused, as
/// [`Kind::Guest`](crate::error::Kind::Guest).
pub async fn call(
    settings: &Settings,
    anti_forgery: &AntiForgery,
    actor: &str,
    operation: &str,
    payload: Vec<u8>,
    timeout: Duration,
) -> Result<Vec<u8>> {
    let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
    let one = Settings { control: settings.rpc.clone(), ..settings.clone() };
    let connection = gather::reach(&one, "calls").await?;
    let bodies = Bodies::new(connection.clone(), &settings.lattice, settings.js_domain.as_deref());
    let invocation = Invocation {
        origin: Entity::actor(ORIGIN),
        target: Entity::actor(actor),
        operation: operation.to_owned(),
        host_id: anti_forgery.public_key().to_owned(),
        ..Invocation::default()
    };
    let invocation = seal(invocation, payload, anti_forgery, &bodies, timeout).await?;
    match connection.request(subjects.actor(actor), None, invocation.encode()?, timeout).await? {
        Answer::Message(message) => read_answer(&bodies, &invocation.id, &message, timeout).await,
        Answer::Nobody => Err(Error::unavailable(format!(
            "nobody answered: no host of lattice {} runs actor {actor}; `latticed hosts` lists the hosts",
            settings.lattice
        ))),
        Answer::Silence => Err(Error::timeout(format!(
            "actor {actor} gave no answer within {} ms; --timeout allows more",
            timeout.as_millis()
        ))),
    }
}
