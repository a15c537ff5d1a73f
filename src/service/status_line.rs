//! How the host is, in one line that an operator understands. Pure.

use crate::host::{HostStatus, Lack};

/// The line of a running host. `calls_per_second` as counted since the last line, `lacks` as [`Readiness`] knows them
/// beyond the lattice, of which the status itself tells more.
///
/// [`Readiness`]: crate::host::Readiness
pub fn line(status: &HostStatus, lacks: &[Lack], calls_per_second: u64) -> String {
    let way = match &status.uplink {
        None => "by itself".to_owned(),
        Some(uplink) if uplink.connected => format!("connected to {}", uplink.server),
        Some(uplink) => {
            let time = span(uplink.since_seconds);
            let why = if uplink.reason.is_empty() { "not connected yet" } else { &uplink.reason };
            let next = match uplink.next_try_seconds {
                Some(seconds) if seconds > 0 => format!(", next try in {}", span(seconds)),
                _ => ", trying now".to_owned(),
            };
            format!("working alone for {time}: {why}{next}")
        }
    };
    let mut line =
        format!("{way} · {}, {}", count(status.actors.len(), "actor"), count(status.providers.len(), "provider"));
    if calls_per_second > 0 {
        line.push_str(&format!(" · {calls_per_second} calls/s"));
    }
    if let Some(why) = &status.not_reloaded {
        line.push_str(&format!(" · settings not reloaded: {why}"));
    }
    let others: Vec<&Lack> = lacks.iter().filter(|lack| lack.what != "lattice").collect();
    if let Some(first) = others.first() {
        let more = if others.len() > 1 { format!(" (and {} more)", others.len() - 1) } else { String::new() };
        line.push_str(&format!(" · degraded: {}: {}{more}", shortened(&first.what, status), first.why));
    }
    line
}

fn count(number: usize, name: &str) -> String {
    if number == 1 { format!("1 {name}") } else { format!("{number} {name}s") }
}

/// A time in its two largest units; seconds are left out of all that is longer than a few minutes.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Names in the place of keys; of a key without a name the beginning, which is enough to find it.
fn shortened(what: &str, status: &HostStatus) -> String {
    let words: Vec<String> = what
        .split(' ')
        .map(|word| {
            let (key, rest) = word.split_once('/').map_or((word, None), |(key, rest)| (key, Some(rest)));
            if let Some(name) = status.names.get(key) {
                return rest.map_or_else(|| name.clone(), |rest| format!("{name}/{rest}"));
            }
            if let Some(link) = status.links.iter().find(|link| link.id == word) {
                let actor = status.names.get(&link.actor_id).unwrap_or(&link.actor_id);
                return format!("of {actor} to {}", link.contract_id);
            }
            if word.len() > 40 { format!("{}…", word.chars().take(8).collect::<String>()) } else { word.into() }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{ActorStatus, ProviderStatus, UplinkStatus};

    fn status(uplink: Option<UplinkStatus>) -> HostStatus {
        HostStatus {
            actors: vec![ActorStatus::default(); 3],
            providers: vec![ProviderStatus::default()],
            uplink,
            ..HostStatus::default()
        }
    }

    #[test]
    fn a_board_says_how_it_stands() {
        assert_eq!(line(&status(None), &[], 0), "by itself · 3 actors, 1 provider");
        let connected = UplinkStatus { connected: true, server: "tls://hub:4222".into(), ..UplinkStatus::default() };
        assert_eq!(
            line(&status(Some(connected)), &[], 41),
            "connected to tls://hub:4222 · 3 actors, 1 provider · 41 calls/s"
        );
        let alone = UplinkStatus {
            since_seconds: 3 * 3600 + 5,
            reason: "hub:4222: connection refused".into(),
            next_try_seconds: Some(12),
            ..UplinkStatus::default()
        };
        assert_eq!(
            line(&status(Some(alone)), &[], 0),
            "working alone for 3 h: hub:4222: connection refused, next try in 12 s · 3 actors, 1 provider"
        );
    }

    #[test]
    fn a_reload_that_failed_is_told() {
        let status = HostStatus { not_reloaded: Some("X: expected a number".into()), ..status(None) };
        assert_eq!(
            line(&status, &[], 0),
            "by itself · 3 actors, 1 provider · settings not reloaded: X: expected a number"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let lack = |what: &str, why: &str| Lack { what: what.into(), why: why.into(), since_seconds: 1 };
        let key = "M".repeat(56);
        let lacks = [lack("lattice", "x"), lack(&format!("actor {key}"), "dry"), lack("link y", "z")];
        assert_eq!(
            line(&status(None), &lacks, 0),
            "by itself · 3 actors, 1 provider · degraded: actor MMMMMMMM…: dry (and 1 more)"
        );
    }

    #[test]
    fn times_are_told_in_one_unit() {
        assert_eq!([7, 119, 120, 7200, 200_000].map(span), ["7 s", "119 s", "2 min", "2 h", "2 days"]);
    }
}
