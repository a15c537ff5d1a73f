//! Actors that came from a mirror's name follow it: what the name points to is looked up now and then, and something newer
//! takes the running module's place as a live update.
//!
//! Run by the command that runs a host, for references `mirror://NAME` without a digest; all others mean one content for
//! ever, or are updated by command. A look costs one small question. Only a greater revision by an accepted issuer is taken,
//! so whoever can forge the mirror's answers can neither go back nor put anything of his own in place. What was refused is
//! not fetched again until the name points to something else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use smol::Timer;

use crate::{
    artifact::{Reference, Remote, Source},
    claims::{self, SignedModule},
    error::{Error, Result},
    host::{Host, change::Module, desired::DesiredActor},
    log,
    store::Digest,
};

/// Default of the time between two looks: a minute, 0.3 KB a look. A fleet of fifty asks its mirror once a second.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// What the looks before have told.
#[derive(Default)]
struct Seen {
    /// By reference: what was refused.
    refused: BTreeMap<String, Digest>,
    /// By reference: why the last look failed, so that it is said once.
    failing: BTreeMap<String, String>,
}

/// Whether an actor from `reference` follows a name.
fn is_followed(reference: &Reference) -> bool {
    matches!(reference.source(), Source::Remote(Remote::Mirror)) && !reference.is_pinned()
}

impl Host {
    /// Looks every `interval`, for ever. Boards that were switched on together look at different times.
    pub async fn follow_names(self: Arc<Self>, interval: Duration) {
        let mut seen = Seen::default();
        let mut wait = interval.mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX));
        loop {
            Timer::after(wait).await;
            wait = interval;
            let desired = self.desired();
            let followed = desired.actors.values().filter_map(|actor| {
                let reference = Reference::parse(&actor.reference).ok()?;
                is_followed(&reference).then_some((actor, reference))
            });
            let followed: Vec<_> = followed.collect();
            seen.keep(&followed);
            for (actor, reference) in followed {
                match self.follow(actor, &reference, &mut seen).await {
                    Ok(()) => drop(seen.failing.remove(&actor.reference)),
                    Err(error) if seen.failing.get(&actor.reference).is_some_and(|text| text == error.text()) => {}
                    Err(error) => {
                        log::warn!("cannot follow {reference}: {error}"; actor_id = actor.public_key);
                        seen.failing.insert(actor.reference.clone(), error.text().to_owned());
                    }
                }
            }
        }
    }

    /// Refuses a module from a followed name that is no newer than the one this host has from there: what a name points to
    /// leads forward only, at a boot too.
    ///
    /// # Errors
    /// `Conflict`.
    pub(super) async fn check_not_older(&self, module: &Module, claims: &SignedModule) -> Result<()> {
        if !Reference::parse(&module.reference).is_ok_and(|reference| is_followed(&reference)) {
            return Ok(());
        }
        let desired = self.desired();
        let newer = |actor: &&DesiredActor| actor.reference == module.reference && actor.digest != module.digest;
        let Some(kept) = desired.actors.get(&module.public_key).filter(newer) else { return Ok(()) };
        let (blobs, policy, digest) = (self.store.blobs(), self.policy_for(kept.digest), kept.digest);
        let kept = smol::unblock(move || claims::verify_actor(&blobs.read_blocking(digest)?, &policy)).await;
        match kept {
            Ok(kept) if claims.revision <= kept.revision => Err(Error::conflict(format!(
                "{} points to revision {}, revision {} is here; the new one must be greater",
                module.reference, claims.revision, kept.revision
            ))),
            // What cannot be used is not better.
            _ => Ok(()),
        }
    }

    async fn follow(&self, actor: &DesiredActor, reference: &Reference, seen: &mut Seen) -> Result<()> {
        let Some(digest) = self.artifacts.look_up(reference, "an actor").await? else { return Ok(()) };
        if digest == actor.digest || seen.refused.get(&actor.reference) == Some(&digest) {
            return Ok(());
        }
        let outcome = self.take_newer(actor).await;
        if let Err(error) = &outcome
            && !error.kind().is_curable()
        {
            seen.refused.insert(actor.reference.clone(), digest);
        }
        outcome
    }

    async fn take_newer(&self, actor: &DesiredActor) -> Result<()> {
        let (module, claims) = self.fetch_module(&actor.reference, actor.requester).await?;
        if module.public_key != actor.public_key {
            return Err(Error::conflict(format!("it points to another actor by now, {}", module.public_key)));
        }
        self.check_update(&module, &claims).await?;
        self.change(|desired| desired.update_actor(&module)).await
    }
}

impl Seen {
    /// Forgets what is followed no longer.
    fn keep(&mut self, followed: &[(&DesiredActor, Reference)]) {
        let known = |reference: &String| followed.iter().any(|(actor, _)| actor.reference == *reference);
        self.refused.retain(|reference, _| known(reference));
        self.failing.retain(|reference, _| known(reference));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mirrors_are_followed_and_nothing_else() {
        let followed = |text: &str| is_followed(&Reference::parse(text).unwrap());
        assert!(followed("mirror://echo"));
        assert!(!followed(&format!("mirror://echo@sha256:{}", "0a".repeat(32))));
        assert!(!followed("nats://actors/echo") && !followed("registry.example.org/echo:1"));
    }
}
