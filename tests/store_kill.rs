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
            a_commit_costs_a_page_and_rest_costs_nothing();
            println!("test a_commit_costs_a_page_and_rest_costs_nothing ... ok");
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

/// Bytes this process has made the kernel write to disks.
fn written() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("the field is there");
    line.parse().expect("a number")
}

/// Threads of the pool for blocking work.
fn blocking_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    // A thread may end between the two looks.
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("blocking"))
        .count()
}

/// In this program, because the figures are those of the whole process.
fn a_commit_costs_a_page_and_rest_costs_nothing() {
    const COMMITS: u64 = 100;
    // Beside the build, not in /tmp: that may be no disk.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the test");
    let store = open(root.path().to_str().expect("a plain path"));
    let increment = |number: u64| {
        let batch = latticed::store::Batch::new().put(Table::KeyValue, "counter", number.to_string());
        smol::block_on(store.commit(batch)).expect("there is room");
    };
    increment(0);
    let before = written();
    (1..=COMMITS).for_each(increment);
    let each = (written() - before) / COMMITS;
    assert!(each <= 3 * 4096, "a commit of a few bytes writes {each}");

    let until = std::time::Instant::now() + Duration::from_secs(5);
    while blocking_threads() > 0 {
        assert!(std::time::Instant::now() < until, "the thread that wrote never ends");
        thread::sleep(Duration::from_millis(50));
    }
    let before = written();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(written(), before, "bytes written at rest");
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
