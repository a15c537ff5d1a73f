//! Keeps this host and the lattice's bucket alike (`protocol/cache.md §4`).
//!
//! One watch is the trigger for everything others change: claims and references go to the `cache`, links become part of
//! what should run. What this host knows and the bucket does not is written to it, whenever the two meet. Without
//! JetStream nothing is lost but the sharing.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use super::{
    Shared,
    bucket::{Bucket, Content, Entry},
};
use crate::{
    claims::{AllowedIssuers, PublicKey, Role},
    error::{Kind, Result},
    host::{
        desired::{Desired, DesiredLink},
        links::{MAX_LATTICE_LINKS_BYTES, MAX_LINK_BYTES, MAX_LINKS},
        remote::Rights,
    },
    log,
    store::Batch,
    wire::{
        LinkDefinition,
        cache::{ClaimsRecord, Key, ReferenceRecord, encode_link, parse_link},
        event::link::{LinkDeleted, LinkSet, ReferenceSet},
    },
};

/// First and longest wait before the bucket is looked for again after it could not be had, doubling between. A server that
/// starts is soon ready; one that has no JetStream at all need not be asked more than six times an hour.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// Follows the bucket for ever: sync at the start and after each lost connection, then each change.
pub async fn follow_for_ever(shared: Arc<Shared>) {
    let (mut told, mut wait) = (false, FIRST_RETRY);
    loop {
        shared.control.connected().await;
        let lost = shared.control.changed();
        let mut met = false;
        let following = async {
            match follow(&shared, &mut met).await {
                Err(error) => Some(error),
                Ok(never) => match never {},
            }
        };
        // What changed while the line was down comes with the next sync; to wait for the watch to notice would take longer.
        let disconnected = async {
            shared.control.disconnected().await;
            None
        };
        let outcome = smol::future::or(following, disconnected).await;
        if met {
            (told, wait) = (false, FIRST_RETRY);
        }
        let Some(error) = outcome else { continue };
        if told {
            log::debug!("the lattice's bucket cannot be used: {error}");
        } else {
            told = true;
            log::warn!("the lattice's bucket cannot be used: {error}; this host goes on with what it knows");
        }
        smol::future::or(lost, async {
            smol::Timer::after(wait).await;
        })
        .await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

/// Opens the bucket, takes over what is in it, and follows it until something breaks. `met` tells that it got that far.
async fn follow(shared: &Arc<Shared>, met: &mut bool) -> Result<Infallible> {
    let domain = shared.settings.js_domain.as_deref();
    let bucket = Bucket::new(shared.control.clone(), shared.subjects.lattice(), domain);
    let mut watch = bucket.watch(shared.settings.timing.bucket_heartbeat).await?;
    let Content { entries, left_out } = watch.content().await?;
    let seen: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    shared.cache.try_again();
    take_over(shared, entries).await?;
    log::info!("the lattice's bucket is followed, {} entries", seen.len());
    // What was left out may be there, and newer than what this host has of it: then nothing is known to be missing.
    push_missing(shared, (left_out == 0).then_some(&seen)).await?;
    let mut own = BTreeMap::new();
    loop {
        let waiting = shared.cache.waiting.listen();
        flush(shared, &bucket, &mut own).await?;
        *met = true;
        let refused = shared.cache.any_refused();
        let other = async {
            if refused {
                smol::future::or(waiting, async {
                    smol::Timer::after(LONGEST_RETRY).await;
                    shared.cache.try_again();
                })
                .await;
            } else {
                waiting.await;
            }
            None
        };
        if let Some(entry) = smol::future::or(async { Some(watch.next().await) }, other).await {
            let mut entries = vec![entry?];
            let more = watch.ready().await;
            entries.extend(more.as_ref().into_iter().flatten().cloned());
            take_changes(shared, newest(entries, &mut own)).await;
            more?;
        }
    }
}

/// Of each key what was said last, in the order of that, without what this host has said itself since: `own` holds the number
/// of our last word on a key until it comes back.
fn newest(entries: Vec<Entry>, own: &mut BTreeMap<String, u64>) -> Vec<Entry> {
    let last: BTreeMap<String, u64> = entries.iter().map(|entry| (entry.key.clone(), entry.number)).collect();
    let mut newest = Vec::new();
    for entry in entries.into_iter().filter(|entry| last.get(&entry.key) == Some(&entry.number)) {
        match own.get(&entry.key) {
            Some(said) if entry.number < *said => {}
            Some(said) => {
                let ours = entry.number == *said;
                own.remove(&entry.key);
                if !ours {
                    newest.push(entry);
                }
            }
            None => newest.push(entry),
        }
    }
    newest
}

fn is_known(desired: &Desired, link: &LinkDefinition) -> bool {
    desired.links.get(&link.id).is_some_and(|there| *there.link == *link)
}

/// A link of the bucket; `None` for what stands under a wrong key.
fn read_link(id: &str, value: &[u8]) -> Option<LinkDefinition> {
    match parse_link(value) {
        Ok(link) if link.id == id => Some(link),
        Ok(link) => {
            log::warn!("a link in the lattice's bucket stands under a wrong key"; actor_id = link.actor_id);
            None
        }
        Err(error) => {
            log::warn!("a link in the lattice's bucket was not taken over: {error}");
            None
        }
    }
}

/// Takes over all that is in the bucket: in one change of what should run, and without a word to the lattice, which knows.
async fn take_over(shared: &Arc<Shared>, content: Vec<Entry>) -> Result<()> {
    let (mut put, mut gone, mut others) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for entry in content {
        // What this host is about to write is newer than what the bucket says.
        if shared.cache.waits(&entry.key) {
            continue;
        }
        match (Key::parse(&entry.key), &entry.value) {
            (Some(Key::Link(id)), Some(value)) => {
                if let Some(link) = read_link(&id, value) {
                    put.insert(id, link);
                }
            }
            (Some(Key::Link(id)), None) => drop(gone.insert(id)),
            (Some(_), _) => others.push(entry),
            (None, _) => {}
        }
    }
    shared.cache.remember(&others).await?;
    let mut told = shared.links.lock().await;
    // Links may have been told while this waited for its turn.
    put.retain(|id, _| !shared.cache.waits_for_link(id));
    gone.retain(|id| !shared.cache.waits_for_link(id));
    let desired = shared.host.desired();
    for id in put.iter().filter(|(_, link)| is_known(&desired, link)).map(|(id, _)| id) {
        shared.host.conflicts().remove(id);
    }
    put.retain(|_, link| !is_known(&desired, link));
    gone.retain(|id| desired.links.contains_key(id));
    if put.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let confined = shared.remote() == Rights::Own;
    // What is kept is decided within the change: a manifest that is taken on meanwhile counts.
    let change = |desired: &Desired| {
        put.retain(|id, link| !shared.is_kept(desired, id, Some(link)));
        gone.retain(|id| !shared.is_kept(desired, id, None));
        Ok(with_links(desired, &put, &gone, confined))
    };
    shared.host.change(change).await?;
    for id in &gone {
        told.remove(id);
    }
    let desired = shared.host.desired();
    let taken = put.keys().filter_map(|id| Some((id.clone(), desired.links.get(id)?.link.clone())));
    told.extend(taken);
    Ok(())
}

/// `desired` with the links of the bucket.
fn with_links(
    desired: &Desired,
    put: &BTreeMap<String, LinkDefinition>,
    gone: &BTreeSet<String>,
    confined: bool,
) -> Desired {
    let mut next = desired.clone();
    next.links.retain(|id, _| !gone.contains(id));
    let (mut left_out, mut bytes) = (0, next.lattice_link_bytes());
    for (id, link) in put {
        let link = DesiredLink { link: Arc::new(link.clone()), application: String::new(), confined };
        let before = next.links.get(id);
        let after = bytes - before.map_or(0, DesiredLink::lattice_bytes) + link.bytes();
        let room = next.links.len() < MAX_LINKS || before.is_some();
        if room && link.bytes() <= MAX_LINK_BYTES && after <= MAX_LATTICE_LINKS_BYTES {
            bytes = after;
            next.links.insert(id.clone(), link);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        log::warn!(
            "the lattice has more or longer links than a host takes on: {left_out} were left out; it takes {MAX_LINKS} \
             links, {MAX_LINK_BYTES} bytes for one, {MAX_LATTICE_LINKS_BYTES} bytes for all that come over the lattice"
        );
    }
    next
}

/// Takes over changes, in their order; one that cannot be is said and left out.
async fn take_changes(shared: &Arc<Shared>, entries: Vec<Entry>) {
    let mut others = Vec::new();
    for entry in entries.into_iter().filter(|entry| !shared.cache.waits(&entry.key)) {
        let outcome = match (Key::parse(&entry.key), &entry.value) {
            (Some(Key::Link(id)), Some(value)) => match read_link(&id, value) {
                Some(link) => put_link(shared, link).await,
                None => Ok(()),
            },
            (Some(Key::Link(id)), None) => delete_link(shared, &id).await,
            (Some(_), _) => {
                others.push(entry);
                continue;
            }
            (None, _) => Ok(()),
        };
        if let Err(error) = outcome {
            log::warn!("a link of the lattice's bucket was not taken over: {error}"; key = entry.key);
        }
    }
    if let Err(error) = shared.cache.remember(&others).await {
        log::warn!("entries of the lattice's bucket were not taken over: {error}");
    }
}

async fn put_link(shared: &Arc<Shared>, link: LinkDefinition) -> Result<()> {
    let mut told = shared.links.lock().await;
    if shared.cache.waits_for_link(&link.id) {
        return Ok(());
    }
    let desired = shared.host.desired();
    if is_known(&desired, &link) {
        shared.host.conflicts().remove(&link.id);
        return Ok(());
    }
    let (confined, mut kept) = (shared.remote() == Rights::Own, false);
    let change = |desired: &Desired| {
        kept = shared.is_kept(desired, &link.id, Some(&link));
        if kept { Ok(desired.clone()) } else { desired.put_link_from_afar(link.clone(), confined) }
    };
    shared.host.change(change).await?;
    if !kept {
        shared.events.emit(&LinkSet(&link));
        told.insert(link.id.clone(), Arc::new(link));
    }
    Ok(())
}

async fn delete_link(shared: &Arc<Shared>, id: &str) -> Result<()> {
    let mut told = shared.links.lock().await;
    if shared.cache.waits_for_link(id) {
        return Ok(());
    }
    let desired = shared.host.desired();
    let Some(link) = desired.links.get(id).map(|there| there.link.clone()) else { return Ok(()) };
    let mut kept = false;
    let change = |desired: &Desired| {
        kept = shared.is_kept(desired, id, None);
        Ok(if kept { desired.clone() } else { desired.delete_link(id) })
    };
    shared.host.change(change).await?;
    if !kept {
        shared.events.emit(&LinkDeleted(&link));
        told.remove(id);
    }
    Ok(())
}

/// Tells the lattice of links that were made or deleted on this host, now: by an event, and in the bucket as soon as there
/// is one.
///
/// # Errors
/// The disk failed; what was not told is told next time.
pub async fn tell_links(shared: &Shared) -> Result<()> {
    let mut told = shared.links.lock().await;
    tell(shared, &mut told).await
}

/// Changes links of what should run, and tells the lattice, with nothing from the bucket in between: that could be older,
/// and undo the change before anybody heard of it.
///
/// # Errors
/// Those of `change`; the disk failed.
pub async fn change_links(shared: &Shared, by: &str, change: impl FnOnce(&Desired) -> Result<Desired>) -> Result<()> {
    let mut told = shared.links.lock().await;
    shared.change(by, Batch::new(), change).await?;
    tell(shared, &mut told).await
}

async fn tell(shared: &Shared, told: &mut BTreeMap<String, Arc<LinkDefinition>>) -> Result<()> {
    let desired = shared.host.desired();
    let gone: Vec<Arc<LinkDefinition>> =
        told.values().filter(|link| !desired.links.contains_key(&link.id)).cloned().collect();
    for link in gone {
        shared.events.emit(&LinkDeleted(&link));
        shared.cache.write(&Key::Link(link.id.clone()), None).await?;
        told.remove(&link.id);
    }
    shared.host.conflicts().retain(|id, _| desired.manifest_of_link(id).is_some());
    for wanted in desired.links.values() {
        if told.get(&wanted.link.id) == Some(&wanted.link) {
            continue;
        }
        // From now on the bucket says what this board says.
        shared.host.conflicts().remove(&wanted.link.id);
        shared.events.emit(&LinkSet(&wanted.link));
        shared.cache.write(&Key::Link(wanted.link.id.clone()), Some(encode_link(&wanted.link)?)).await?;
        told.insert(wanted.link.id.clone(), wanted.link.clone());
    }
    Ok(())
}

/// Tells of links whenever what should run has changed, for ever.
pub async fn tell_links_for_ever(shared: Arc<Shared>) {
    loop {
        let changed = shared.host.desired_changed();
        if let Err(error) = tell_links(&shared).await {
            log::warn!("a link was not told to the lattice: {error}");
        }
        changed.await;
    }
}

/// Links, claims and references of this host that the bucket has never heard of, or has lost, are written to it: what is not
/// among the keys `seen`, where all of them are known.
async fn push_missing(shared: &Arc<Shared>, seen: Option<&BTreeSet<String>>) -> Result<()> {
    tell_links(shared).await?;
    let desired = shared.host.desired();
    for wanted in desired.links.values() {
        let key = Key::Link(wanted.link.id.clone());
        if seen.is_some_and(|seen| !seen.contains(&key.text())) {
            shared.cache.write(&key, Some(encode_link(&wanted.link)?)).await?;
        }
    }
    publish_running(shared, seen).await
}

/// Writes claims and references of what runs here, where they are news: to this host, or to a bucket that has `seen` only
/// these keys.
async fn publish_running(shared: &Arc<Shared>, seen: Option<&BTreeSet<String>>) -> Result<()> {
    let missing = |key: &str| seen.is_some_and(|seen| !seen.contains(key));
    for (record, reference) in running(shared) {
        let public_key = record.subject.clone();
        let key = Key::Claims(public_key.clone());
        let value = record.encode()?;
        if missing(&key.text()) || shared.cache.is_news(&record, &value)? {
            shared.cache.write(&key, Some(value)).await?;
        }
        let key = Key::Reference(reference.clone());
        let news = shared.cache.resolve_reference(&reference).as_ref() != Some(&public_key);
        if news || missing(&key.text()) {
            let value = ReferenceRecord { reference: reference.clone(), public_key: public_key.clone() }.encode()?;
            shared.cache.write(&key, Some(value)).await?;
        }
        if news {
            shared.events.emit(&ReferenceSet { oci_url: &reference, public_key: &public_key });
        }
    }
    Ok(())
}

/// What runs here, as the bucket knows it, and where each came from.
fn running(shared: &Shared) -> Vec<(ClaimsRecord, String)> {
    let routes = shared.host.router().routes();
    let actors = routes.actors().map(|actor| {
        let claims = &actor.claims;
        let record = ClaimsRecord {
            call_alias: claims.call_alias.clone().unwrap_or_default(),
            issuer: claims.issuer.clone(),
            name: claims.name.clone(),
            capabilities: claims.caps.clone(),
            revision: claims.revision,
            tags: claims.tags.clone(),
            version: claims.version.clone(),
            subject: claims.subject.clone(),
            contract_id: String::new(),
            config_schema: None,
        };
        (record, actor.desired.reference.clone())
    });
    let mut records: Vec<_> = actors.collect();
    for running in routes.providers() {
        let Some(claims) = &running.claims else { continue };
        let record = ClaimsRecord {
            issuer: claims.issuer.clone(),
            name: claims.name.clone(),
            revision: claims.revision,
            version: claims.version.clone(),
            subject: claims.subject.clone(),
            contract_id: claims.contract_id.clone(),
            config_schema: claims.config_schema.as_ref().map(ToString::to_string),
            ..ClaimsRecord::default()
        };
        records.push((record, running.desired.reference.clone()));
    }
    for provider in shared.host.desired().providers.values().filter(|provider| provider.token.is_none()) {
        let record = ClaimsRecord {
            name: provider.reference.trim_start_matches("builtin:").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            subject: provider.public_key.clone(),
            contract_id: provider.contract_id.clone(),
            ..ClaimsRecord::default()
        };
        records.push((record, provider.reference.clone()));
    }
    records
}

/// Claims as they are told to whoever asks. The bucket's records carry no token, so anybody who may write to it may write
/// any: what runs here is told from its module or archive, whatever the bucket says; of the rest only what can be true is
/// told, with keys that are keys, and issuers that may sign what runs on this board.
pub fn told_claims(shared: &Shared) -> Vec<ClaimsRecord> {
    let issuers = shared.host.rules().issuers;
    let from_bucket = shared.cache.claims().into_iter().filter(|record| can_be_true(record, &issuers));
    let mut told: BTreeMap<String, ClaimsRecord> = from_bucket.map(|record| (record.subject.clone(), record)).collect();
    told.extend(running(shared).into_iter().map(|(record, _)| (record.subject.clone(), record)));
    told.into_values().collect()
}

fn can_be_true(record: &ClaimsRecord, issuers: &AllowedIssuers) -> bool {
    let Ok(subject) = record.subject.parse::<PublicKey>() else { return false };
    let issuer = record.issuer.parse::<PublicKey>().ok().filter(|issuer| issuer.role() == Role::Account);
    match (subject.role(), issuer) {
        (Role::Module, Some(issuer)) => issuers.check(&issuer, &record.subject).is_ok(),
        (Role::Service, Some(_)) => true,
        // A provider inside a host has no token, and so no issuer.
        (Role::Service, None) => record.issuer.is_empty(),
        _ => false,
    }
}

/// Writes claims of what runs whenever that changes, for ever.
pub async fn publish_for_ever(shared: Arc<Shared>) {
    loop {
        let changed = shared.events.routes_changed.listen();
        if let Err(error) = publish_running(&shared, None).await {
            log::warn!("claims were not kept: {error}");
        }
        changed.await;
    }
}

/// Writes to the bucket what waits for it; notes in `own` what it was told last of each key.
async fn flush(shared: &Arc<Shared>, bucket: &Bucket, own: &mut BTreeMap<String, u64>) -> Result<()> {
    while let Some((key, value)) = shared.cache.next_waiting() {
        match bucket.put(&key, value.clone()).await {
            Ok(number) => {
                own.insert(key.clone(), number);
                shared.cache.written(&key, &value).await?;
            }
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Limit | Kind::Invalid) => {
                log::warn!("the lattice's bucket does not take an entry, which waits until it does: {error}"; key = key);
                shared.cache.refused(&key);
            }
            Err(error) => return Err(error.context(&key)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, number: u64) -> Entry {
        Entry { key: key.into(), value: None, number }
    }

    #[test]
    fn claims_that_cannot_be_true_are_not_told() {
        let key = |role| crate::claims::KeyPair::from_name(role, "one of the bucket").public_key();
        let record = |subject: String, issuer: String| ClaimsRecord { subject, issuer, ..ClaimsRecord::default() };
        let (module, account) = (key(Role::Module).to_string(), key(Role::Account).to_string());
        let (any, only) = (AllowedIssuers::any(), AllowedIssuers::only([key(Role::Account)]));
        assert!(can_be_true(&record(module.clone(), account.clone()), &any));
        assert!(can_be_true(&record(module.clone(), account), &only));
        let other = crate::claims::KeyPair::from_name(Role::Account, "somebody").public_key().to_string();
        assert!(can_be_true(&record(module.clone(), other.clone()), &any));
        assert!(!can_be_true(&record(module.clone(), other), &only), "nothing of that issuer runs on this board");
        for (subject, issuer) in
            [("M1", "A1"), (&*module, ""), (&*module, &*module), (&*key(Role::User).to_string(), "")]
        {
            assert!(!can_be_true(&record(subject.to_owned(), issuer.to_owned()), &any), "{subject} {issuer}");
        }
        assert!(can_be_true(&record(key(Role::Service).to_string(), String::new()), &any));
    }

    #[test]
    fn of_many_words_on_a_key_the_last_counts_and_our_own_are_no_news() {
        let mut own = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 6), ("c".to_owned(), 7)]);
        let said = vec![entry("a", 3), entry("b", 4), entry("a", 5), entry("d", 8), entry("d", 9), entry("c", 10)];
        assert_eq!(newest(said, &mut own), [entry("d", 9), entry("c", 10)]);
        // What was said before our last word is not undone by hearing it late.
        assert_eq!(own, BTreeMap::from([("b".to_owned(), 6)]));
        assert_eq!(newest(vec![entry("b", 5)], &mut own), []);
        assert_eq!(newest(vec![entry("b", 6)], &mut own), []);
        assert_eq!(newest(vec![entry("b", 11)], &mut own), [entry("b", 11)]);
    }
}
