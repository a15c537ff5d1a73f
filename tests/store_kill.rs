//! Kills a real process with signal 9 while it increments counters, many times over, and holds it to every increment it
//! acknowledged. The process is this program itself, started with the word `increment`; so it brings its own `main`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use latticed::{
    error::Result,
    store::{DamageKind, RealDisk, Settings, Store, Table},
};

/// Times the process is killed.
const ROUNDS: u64 = 15;
/// Counters incremented beside each other, so that commits share a sync.
const COUNTERS: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [word, place] if word == "increment" => increment_for_ever(place),
        _ => {
            every_acknowledged_increment_survives_a_kill();
            println!("test every_acknowledged_increment_survives_a_kill ... ok");
        }
    }
}

fn open(place: &str) -> Store {
    let settings = Settings { segment_bytes: 4096, ..Settings::default() };
    let (store, damage) = Store::open(settings, Arc::new(RealDisk::new(place))).expect("the host always starts");
    assert!(damage.iter().all(|damage| damage.kind == DamageKind::Tail), "{damage:?}");
    store
}

fn counter(store: &Store, number: usize) -> u64 {
    let value = store.get(Table::KeyValue, &[number as u8]).expect("readable");
    value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// Says `NUMBER VALUE` for each increment once it is acknowledged.
fn increment_for_ever(place: &str) {
    let store = open(place);
    thread::scope(|scope| {
        for number in 0..COUNTERS {
            let store = &store;
            scope.spawn(move || {
                loop {
                    let increment = store.update(move |transaction| -> Result<u64> {
                        let old = transaction.view().get(Table::KeyValue, &[number as u8])?;
                        let old = old.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
                        transaction.put(Table::KeyValue, &[number as u8], (old + 1).to_le_bytes());
                        Ok(old + 1)
                    });
                    let value = smol::block_on(increment).expect("there is room");
                    let line = format!("{number} {value}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("the test reads");
                }
            });
        }
    });
}

fn every_acknowledged_increment_survives_a_kill() {
    let root = tempfile::tempdir().expect("a folder for the test");
    let place = root.path().join("state");
    let place = place.to_str().expect("a plain path");
    let mut acknowledged = [0_u64; COUNTERS];
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["increment", place])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start itself");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("the child increments").expect("a line");
        let reader = thread::spawn(move || -> Vec<String> {
            // The last line may be cut short by the kill; the pipe keeps the rest.
            std::iter::once(first).chain(lines.map_while(|line| line.ok())).collect()
        });
        thread::sleep(Duration::from_millis(20 + 13 * round));
        child.kill().expect("kill -9");
        child.wait().expect("it is gone");
        let lines = reader.join().expect("lines");
        assert!(lines.len() > 1, "round {round}: the child did nothing");
        for line in lines {
            if let Some((number, value)) = line.split_once(' ')
                && let (Ok(number), Ok(value)) = (number.parse::<usize>(), value.parse::<u64>())
            {
                // A line cut short reads as a smaller value, which asks for less.
                acknowledged[number] = acknowledged[number].max(value);
            }
        }
        let store = open(place);
        for (number, acknowledged) in acknowledged.iter_mut().enumerate() {
            let found = counter(&store, number);
            assert!(
                found == *acknowledged || found == *acknowledged + 1,
                "round {round}: counter {number} is {found}, acknowledged were {acknowledged}"
            );
            *acknowledged = found;
        }
    }
    assert!(acknowledged.iter().all(|count| *count > ROUNDS), "{acknowledged:?}");
}
