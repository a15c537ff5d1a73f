//! One call of an actor wherever it runs in the lattice, for the command line.

use std::time::Duration;

use super::{
    bodies::Bodies,
    connection::Answer,
    gather,
    rpc::{read_answer, seal},
    settings::Settings,
};
use crate::{
    claims::AntiForgery,
    error::{Error, Result},
    wire::{Entity, Invocation, subject::Subjects},
};

/// Who calls, as every host accepts a call from a command line (`protocol/invocation.md §3`).
const ORIGIN: &str = "__WASH__";

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
