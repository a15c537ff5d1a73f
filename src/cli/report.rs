//! The status of a host as a page of text for people.
//!
//! Pure; used by `latticed status`. It shows the names of link values but not the values: they may hold passwords, and a
//! status is what people paste into a bug report.

use std::fmt::Write as _;

use super::table::{
    Column::{Key, Number, Text},
    Table, printable,
};
use crate::{
    artifact::Transfer,
    host::{HostStatus, UplinkStatus},
};

/// The page for `status`, lines at most `width` characters where that can be.
pub fn of(status: &HostStatus, width: Option<usize>) -> String {
    let mut page = head(status);
    if !status.problems.is_empty() {
        page.push_str("\nProblems\n");
        for problem in &status.problems {
            push(&mut page, format_args!("  {}", shortened(&named(problem, status))));
        }
    }
    if !status.differences.is_empty() {
        page.push_str("\nOther than the manifests say\n");
        for difference in &status.differences {
            push(&mut page, format_args!("  {}", printable(difference)));
        }
    }
    downloads(&mut page, status);
    if !status.pending.is_empty() {
        page.push_str("\nPending commands\n");
        page.push_str(&super::pending::table(&status.pending).render(width));
    }
    section(&mut page, "No actors run.", status.actors.len(), actors(status), width);
    section(&mut page, "No providers run.", status.providers.len(), providers(status), width);
    section(&mut page, "There are no links.", status.links.len(), links(status), width);
    page
}

/// `text` with names in the place of keys and of the identities of links, which are numbers of 64 digits.
fn named(text: &str, status: &HostStatus) -> String {
    let name = |key: &str| status.names.get(key).map_or(key, String::as_str).to_owned();
    let mut text = text.to_owned();
    for link in status.links.iter().filter(|link| !link.id.is_empty()) {
        let words = format!("of {} to {} ({})", name(&link.actor_id), link.contract_id, link.link_name);
        text = text.replace(&link.id, &words);
    }
    for (key, name) in status.names.iter().filter(|(key, _)| !key.is_empty()) {
        text = text.replace(key.as_str(), name);
    }
    text
}

fn head(status: &HostStatus) -> String {
    let mut page = String::new();
    push(&mut page, format_args!("{}  {}", shortened(&status.friendly_name), shortened(&status.host_id)));
    push(
        &mut page,
        format_args!(
            "latticed {}, lattice {}, up {}",
            printable(&status.version),
            printable(&status.lattice),
            duration(status.uptime_seconds)
        ),
    );
    if let Some(uplink) = &status.uplink {
        push(&mut page, format_args!("{}", way_out(uplink)));
    }
    let memory = &status.memory;
    push(
        &mut page,
        format_args!(
            "memory {} (resident {}), compiled modules {}",
            bytes(memory.pss_bytes),
            bytes(memory.rss_bytes),
            bytes(memory.module_cache_bytes)
        ),
    );
    if !status.labels.is_empty() {
        let labels: Vec<_> = status.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        push(&mut page, format_args!("labels {}", shortened(&labels.join(" "))));
    }
    page
}

/// What is on its way here, two lines each.
fn downloads(page: &mut String, status: &HostStatus) {
    if status.downloads.is_empty() {
        return;
    }
    page.push_str("\nDownloads\n");
    for download in &status.downloads {
        push(page, format_args!("  {}", shortened(&download.reference)));
        push(page, format_args!("    {}", printable(&transfer(download))));
    }
}

/// How far a download is, in a line: `1.2 MiB of 2.0 MiB (60 %), 64.0 KiB/s, attempt 3: the connection broke off`.
pub fn transfer(download: &Transfer) -> String {
    let mut line = match download.total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = download.received.min(total) * 100 / total;
            format!("{} of {} ({percent} %)", amount(download.received), amount(total))
        }
        None => amount(download.received),
    };
    line.push_str(&format!(", {}/s from {}", amount(download.bytes_per_second), download.source));
    if download.attempt > 1 {
        line.push_str(&format!(", attempt {}: {}", download.attempt, download.problem));
    }
    line
}

/// Bytes in the unit people compare by, also when there are none.
pub fn amount(count: u64) -> String {
    if count == 0 { "0 KiB".to_owned() } else { bytes(count) }
}

/// How the way to other hosts stands, in a line.
fn way_out(uplink: &UplinkStatus) -> String {
    let since = duration(uplink.since_seconds);
    if uplink.connected {
        return format!("connected to the lattice for {since}");
    }
    let mut line = format!("working alone for {since}");
    if !uplink.reason.is_empty() {
        line.push_str(&format!(": {}", shortened(&uplink.reason)));
    }
    if let Some(seconds) = uplink.next_try_seconds {
        line.push_str(&format!("; next try within {}", duration(seconds + 1)));
    }
    if uplink.waiting_events > 0 {
        line.push_str(&format!("; {} events wait", uplink.waiting_events));
    }
    line
}

fn section(page: &mut String, empty: &str, rows: usize, table: Table, width: Option<usize>) {
    page.push('\n');
    match rows {
        0 => push(page, format_args!("{empty}")),
        _ => page.push_str(&table.render(width)),
    }
}

fn actors(status: &HostStatus) -> Table {
    let mut table = Table::new(&[
        ("ACTOR", Text),
        ("KEY", Key),
        ("REVISION", Text),
        ("INSTANCES", Number),
        ("QUEUED", Number),
        ("CALLS", Number),
        ("ERRORS", Number),
        ("FUEL", Number),
        ("STATE", Text),
        ("REFERENCE", Text),
    ]);
    for actor in &status.actors {
        let revision = match actor.version.as_str() {
            "" => actor.revision.to_string(),
            version => format!("{} ({version})", actor.revision),
        };
        table.row([
            actor.name.clone(),
            actor.public_key.clone(),
            revision,
            format!("{}/{}", actor.instances, actor.max_concurrent),
            actor.queued.to_string(),
            actor.calls.to_string(),
            actor.errors.to_string(),
            scaled(actor.fuel),
            actor.state.clone(),
            actor.image_ref.clone(),
        ]);
    }
    table
}

fn providers(status: &HostStatus) -> Table {
    let mut table = Table::new(&[
        ("PROVIDER", Text),
        ("KEY", Key),
        ("CONTRACT", Text),
        ("LINK NAME", Text),
        ("CALLS", Number),
        ("ERRORS", Number),
        ("STATE", Text),
        ("DETAIL", Text),
    ]);
    for provider in &status.providers {
        table.row([
            provider.name.clone(),
            provider.public_key.clone(),
            provider.contract_id.clone(),
            provider.link_name.clone(),
            provider.calls.to_string(),
            provider.errors.to_string(),
            provider.state.clone(),
            provider.detail.clone(),
        ]);
    }
    table
}

fn links(status: &HostStatus) -> Table {
    let mut table = Table::new(&[
        ("LINKED ACTOR", Text),
        ("KEY", Key),
        ("CONTRACT", Text),
        ("LINK NAME", Text),
        ("PROVIDER", Key),
        ("VALUES SET", Text),
    ]);
    for link in &status.links {
        let actor = status.actors.iter().find(|actor| actor.public_key == link.actor_id);
        let values: Vec<_> = link.values.keys().map(String::as_str).collect();
        table.row([
            actor.map_or("-", |actor| actor.name.as_str()).to_owned(),
            link.actor_id.clone(),
            link.contract_id.clone(),
            link.link_name.clone(),
            link.provider_id.clone(),
            values.join(" "),
        ]);
    }
    table
}

/// Longest text in a line that is no table, characters. Problems are sentences with a reference or a path in them; what a
/// stranger wrote must not push the rest of the page out of sight.
const MAX_LINE: usize = 1000;

/// `text` as a terminal may show it, cut to [`MAX_LINE`].
fn shortened(text: &str) -> String {
    let text = printable(text);
    match text.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Writes one line; writing to a String cannot fail.
fn push(page: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(page, "{line}");
}

/// The two largest units of a duration: `3 d 4 h`, `12 min 5 s`, `7 s`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes in the unit people compare boards by; `?` where the kernel told nothing.
fn bytes(count: u64) -> String {
    match count {
        0 => "?".to_owned(),
        _ if count < 1024 * 1024 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / (1024.0 * 1024.0)),
    }
}

/// A large count with three or four digits and its power of a thousand.
fn scaled(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", " k", " M", " G", " T"] {
        if value < 1000.0 {
            return if unit.is_empty() { count.to_string() } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.0} P")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{ActorStatus, ProviderStatus},
        wire::LinkDefinition,
    };

    fn status() -> HostStatus {
        let actor = ActorStatus {
            public_key: format!("M{}", "A".repeat(55)),
            name: "counter\x1b[2J".into(),
            image_ref: "file://counter_s.wasm".into(),
            revision: 3,
            version: "0.3.1".into(),
            max_concurrent: 10,
            instances: 2,
            calls: 1234,
            errors: 5,
            fuel: 7_650_000,
            state: "running".into(),
            ..ActorStatus::default()
        };
        let provider = ProviderStatus {
            public_key: format!("V{}", "B".repeat(55)),
            name: "HTTP server".into(),
            contract_id: "wasmcloud:httpserver".into(),
            link_name: "default".into(),
            state: "running".into(),
            detail: "http://127.0.0.1:8080".into(),
            ..ProviderStatus::default()
        };
        let link = LinkDefinition {
            actor_id: actor.public_key.clone(),
            provider_id: provider.public_key.clone(),
            contract_id: "wasmcloud:httpserver".into(),
            link_name: "default".into(),
            values: [("url".to_owned(), "redis://:secret@host".to_owned())].into(),
            ..LinkDefinition::default()
        };
        HostStatus {
            friendly_name: "quiet-river-12".into(),
            host_id: "NHOST".into(),
            lattice: "default".into(),
            version: "0.1.0".into(),
            uptime_seconds: 93_784,
            actors: vec![actor],
            providers: vec![provider],
            links: vec![link],
            uplink: Some(UplinkStatus {
                since_seconds: 7_260,
                reason: "connection refused\x1b".into(),
                next_try_seconds: Some(11),
                waiting_events: 3,
                ..UplinkStatus::default()
            }),
            downloads: vec![Transfer {
                reference: "registry.example/echo:1".into(),
                source: "an image in a registry".into(),
                received: 1 << 20,
                total: Some(4 << 20),
                bytes_per_second: 64 << 10,
                attempt: 2,
                problem: "the connection broke off".into(),
                ..Transfer::default()
            }],
            problems: vec!["the link of counter has no provider".into()],
            ..HostStatus::default()
        }
    }

    #[test]
    fn the_page_shows_what_an_operator_asks() {
        let page = of(&status(), None);
        for part in [
            "quiet-river-12  NHOST",
            "up 1 d 2 h",
            "working alone for 2 h 1 min: connection refused",
            "; next try within 12 s; 3 events wait",
            "  the link of counter has no provider",
            "2/10",
            "7.7 M",
            "1.0 MiB of 4.0 MiB (25 %), 64.0 KiB/s from an image in a registry, attempt 2: the connection broke off",
            "3 (0.3.1)",
            "http://127.0.0.1:8080",
            &format!("M{}", "A".repeat(55)),
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }

    #[test]
    fn secrets_and_escape_sequences_stay_out() {
        let page = of(&status(), None);
        assert!(page.contains("url") && !page.contains("secret"), "{page}");
        assert!(!page.contains('\x1b'));
    }

    #[test]
    fn problems_name_actors_and_links_instead_of_keys() {
        let key = format!("M{}", "A".repeat(55));
        let id = "0123456789ABCDEF".repeat(4);
        let mut status = status();
        status.names.insert(key.clone(), "counter".into());
        status.links[0].id.clone_from(&id);
        status.problems = vec![format!("link {id}: port busy"), format!("actor {key}: unhealthy"), "MOTHER: x".into()];
        let page = of(&status, None);
        for part in [
            "  link of counter to wasmcloud:httpserver (default): port busy\n",
            "  actor counter: unhealthy\n",
            "  MOTHER: x\n",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains(&id), "{page}");
    }

    #[test]
    fn names_without_end_hide_nothing() {
        let endless = "x".repeat(70_000);
        let mut status = status();
        status.friendly_name = endless.clone();
        status.labels.insert(endless.clone(), endless.clone());
        status.problems.insert(0, endless.clone());
        status.actors[0].name = endless.clone();
        status.links[0].values.insert(endless.clone(), String::new());
        for width in [None, Some(80)] {
            let page = of(&status, width);
            assert!(page.len() < 20_000, "{} bytes", page.len());
            assert!(page.contains("  the link of counter has no provider") && page.contains("HTTP ser"), "{page}");
        }
    }

    #[test]
    fn an_empty_host_says_so() {
        let page = of(&HostStatus::default(), Some(80));
        assert!(page.contains("No actors run.") && page.contains("There are no links."), "{page}");
        assert!(!page.contains("Problems"));
    }

    #[test]
    fn amounts_read_well() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(7260), "2 h 1 min");
        assert_eq!(bytes(0), "?");
        assert_eq!(bytes(512 * 1024), "512.0 KiB");
        assert_eq!(bytes(5 * 1024 * 1024), "5.0 MiB");
        assert_eq!(scaled(999), "999");
        assert_eq!(scaled(1500), "1.5 k");
        assert_eq!(scaled(u64::MAX), "18447 P");
    }
}
