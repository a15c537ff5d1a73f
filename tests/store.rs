//! The state store against a model of a disk that tears, lies, fills up and loses power, and against a real one.

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc, time::Duration};

use latticed::{
    error::{Kind, Result},
    store::{Batch, DAMAGED_DIR, Damage, DamageKind, Disk, FaultDisk, RealDisk, Settings, Store, Table},
};

/// Small segments, so that a short scenario sees new segments and cleaning.
fn small() -> Settings {
    Settings { segment_bytes: 600, ..Settings::default() }
}

fn open(disk: &FaultDisk) -> Result<(Store, Vec<Damage>)> {
    Store::open(small(), Arc::new(disk.clone()))
}

/// Opens what another store has just let go of: the thread of its last commit may hold it for a moment.
fn open_again(disk: &FaultDisk) -> (Store, Vec<Damage>) {
    loop {
        match open(disk) {
            Err(error) if error.kind() == Kind::Conflict => std::thread::yield_now(),
            other => return other.expect("the host always starts"),
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(future)
}

fn put(store: &Store, table: Table, key: &str, value: &str) -> Result<()> {
    wait(store.commit(Batch::new().put(table, key, value)))
}

type Content = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

const TABLES: [Table; 5] = [Table::Host, Table::Desired, Table::Link, Table::Claims, Table::KeyValue];

fn content(store: &Store) -> Content {
    TABLES
        .into_iter()
        .flat_map(|table| {
            let entries = store.scan(table, b"").expect("readable");
            entries.into_iter().map(move |(key, value)| ((table as u8, key), value))
        })
        .collect()
}

/// One thing a host does to its state, and what it means.
enum Step {
    Commit(Vec<(Table, &'static str, Option<String>)>),
    Increment,
}

/// The life of a host: first start, an actor, a link with its claims, increments beyond several segments, a stop.
fn life() -> Vec<Step> {
    let text = |text: &str| Some(text.to_string());
    let mut steps = vec![
        Step::Commit(vec![(Table::Host, "seed", text("SN..."))]),
        Step::Commit(vec![(Table::Host, "seed copy", text("SN..."))]),
        Step::Commit(vec![(Table::Desired, "actor", text("MACTOR ×1"))]),
        Step::Commit(vec![
            (Table::Link, "link", text("default")),
            (Table::Claims, "MACTOR", text("counter")),
            (Table::Desired, "provider", text("builtin:keyvalue")),
        ]),
    ];
    steps.extend((0..60).map(|_| Step::Increment));
    steps.push(Step::Commit(vec![(Table::Link, "link", None), (Table::Claims, "MACTOR", None)]));
    steps.extend((0..12).map(|_| Step::Increment));
    steps.push(Step::Commit(vec![(Table::Desired, "actor", None)]));
    steps
}

impl Step {
    fn run(&self, store: &Store) -> Result<()> {
        match self {
            Step::Commit(changes) => {
                let batch = changes.iter().fold(Batch::new(), |batch, (table, key, value)| match value {
                    Some(value) => batch.put(*table, *key, value.as_str()),
                    None => batch.delete(*table, *key),
                });
                wait(store.commit(batch))
            }
            Step::Increment => wait(store.update(|transaction| {
                let old = transaction.view().get(Table::KeyValue, b"counter")?;
                let old: u64 = old.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"));
                transaction.put(Table::KeyValue, b"counter", (old + 1).to_string());
                Ok(())
            })),
        }
    }

    fn model(&self, content: &mut Content) {
        match self {
            Step::Commit(changes) => {
                for (table, key, value) in changes {
                    let key = (*table as u8, key.as_bytes().to_vec());
                    match value {
                        Some(value) => content.insert(key, value.as_bytes().to_vec()),
                        None => content.remove(&key),
                    };
                }
            }
            Step::Increment => {
                let value = content.entry((Table::KeyValue as u8, b"counter".to_vec())).or_default();
                let old: u64 = String::from_utf8_lossy(value).parse().unwrap_or(0);
                *value = (old + 1).to_string().into_bytes();
            }
        }
    }
}

/// Lives until power is cut; answers what was acknowledged, and that with the change that was not.
fn live(disk: &FaultDisk) -> (Content, Content) {
    let mut acknowledged = Content::new();
    let Ok((store, _)) = open(disk) else {
        return (acknowledged.clone(), acknowledged);
    };
    for step in life() {
        let mut next = acknowledged.clone();
        step.model(&mut next);
        if step.run(&store).is_err() {
            assert!(disk.is_off(), "nothing fails before power is cut");
            return (acknowledged, next);
        }
        acknowledged = next;
    }
    (acknowledged.clone(), acknowledged)
}

/// What a power cut may leave behind.
fn only_a_tail(damage: &[Damage]) {
    assert!(damage.iter().all(|damage| damage.kind == DamageKind::Tail), "{damage:?}");
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let disk = FaultDisk::new();
    let (acknowledged, _) = live(&disk);
    let steps = disk.steps();
    let (store, damage) = open_again(&disk);
    assert_eq!(damage, []);
    assert_eq!(content(&store), acknowledged);
    drop(store);
    assert_eq!(disk.steps(), steps, "opening a healthy directory writes nothing");
    assert!(disk.names().len() <= 4, "old segments are cleaned: {:?}", disk.names());
}

#[test]
fn power_may_be_cut_at_every_step() {
    let whole = FaultDisk::new();
    live(&whole);
    assert!(whole.steps() > 180, "the scenario has {} steps", whole.steps());
    for step in 0..whole.steps() {
        let disk = FaultDisk::new();
        disk.cut_at(step);
        let (acknowledged, in_flight) = live(&disk);
        assert!(disk.is_off());
        for seed in 0..5 {
            let disk = disk.restart(seed * 1000 + step);
            let (store, damage) = open_again(&disk);
            only_a_tail(&damage);
            let found = content(&store);
            assert!(
                found == acknowledged || found == in_flight,
                "step {step} seed {seed}: {found:?} is neither {acknowledged:?} nor {in_flight:?}"
            );
            // Life goes on, and what was found stays.
            put(&store, Table::Desired, "after", "the cut").unwrap();
            drop(store);
            let (store, damage) = open_again(&disk);
            assert_eq!(damage, [], "reported once");
            let mut expected = found;
            expected.insert((Table::Desired as u8, b"after".to_vec()), b"the cut".to_vec());
            assert_eq!(content(&store), expected);
        }
    }
}

#[test]
fn power_may_be_cut_again_while_the_store_recovers() {
    let whole = FaultDisk::new();
    live(&whole);
    let mut recoveries = 0;
    for step in (0..whole.steps()).step_by(3) {
        let disk = FaultDisk::new();
        disk.cut_at(step);
        let (acknowledged, in_flight) = live(&disk);
        let first = disk.restart(step);
        let probe = disk.restart(step);
        drop(open_again(&probe));
        for again in 0..probe.steps() {
            recoveries += 1;
            // The same disk as `first`, cut during its recovery.
            let second = disk.restart(step);
            second.cut_at(again);
            let _ = open(&second);
            let (store, damage) = open_again(&second.restart(again));
            only_a_tail(&damage);
            let found = content(&store);
            assert!(found == acknowledged || found == in_flight, "step {step}, then {again}");
        }
        drop(first);
    }
    assert!(recoveries > 20, "only {recoveries} recoveries wrote something");
}

#[test]
fn any_single_failure_costs_only_its_own_commit() {
    let whole = FaultDisk::new();
    live(&whole);
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for step in 0..whole.steps() {
            let disk = FaultDisk::new();
            disk.fail_at(step, kind);
            let (store, _) = open(&disk).unwrap();
            let mut expected = Content::new();
            let mut failures = 0;
            for step in life() {
                match step.run(&store) {
                    Ok(()) => step.model(&mut expected),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Storage);
                        failures += 1;
                    }
                }
                assert_eq!(content(&store), expected);
            }
            assert!(failures <= 1, "step {step}: {failures} failures");
            drop(store);
            let (store, damage) = open_again(&disk);
            assert_eq!(damage, [], "step {step}");
            assert_eq!(content(&store), expected, "step {step}");
        }
    }
}

#[test]
fn each_flipped_bit_is_found_reported_and_costs_one_record() {
    let disk = FaultDisk::new();
    let store = Store::open(Settings::default(), Arc::new(disk.clone())).unwrap().0;
    let records = [("a", "first"), ("b", "second"), ("a", "third, of a again"), ("c", ""), ("d", "last")];
    for (key, value) in records {
        put(&store, Table::Desired, key, value).unwrap();
    }
    drop(store);
    let name = disk.names().pop().unwrap();
    let bytes = disk.content(&name);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in 0..used {
        let disk = FaultDisk::new();
        disk.plant(&name, &bytes);
        disk.corrupt(&name, at, 1 << (at % 8));
        let (store, damage) = open(&disk).expect("the host still starts");
        assert_eq!(damage.len(), 1, "byte {at}");
        let kept = damage[0].set_aside.as_ref().expect("there is room");
        let region = damage[0].offset as usize..(damage[0].offset + damage[0].bytes) as usize;
        assert!(region.contains(&at), "byte {at}: {}", damage[0]);
        let mut flipped = bytes[region].to_vec();
        flipped[at - damage[0].offset as usize] ^= 1 << (at % 8);
        assert!(disk.content(kept).ends_with(&flipped), "the bytes are kept as they were found");

        let found = content(&store);
        let mut lost = 0;
        for (key, newest) in [("a", 2), ("b", 1), ("c", 3), ("d", 4)] {
            let value = found.get(&(Table::Desired as u8, key.into())).map(|value| String::from_utf8_lossy(value));
            match value.as_deref() {
                Some(value) if value == records[newest].1 => {}
                Some("first") if key == "a" => lost += 1,
                None => lost += 1,
                Some(other) => panic!("byte {at}: {key} is {other:?}, which it never was"),
            }
        }
        assert!(lost <= 1, "byte {at} took {lost} keys along");
        drop(store);
        let (store, damage) = open_again(&disk);
        assert_eq!(damage, [], "reported once, byte {at}");
        assert_eq!(content(&store), found);
    }
}

#[test]
fn a_value_damaged_while_the_host_runs_is_an_error_and_is_set_aside_by_cleaning() {
    let disk = FaultDisk::new();
    let (store, _) = open(&disk).unwrap();
    put(&store, Table::Desired, "kept", "well").unwrap();
    put(&store, Table::Desired, "hurt", "precious").unwrap();
    let name = disk.names().pop().unwrap();
    let at = disk.content(&name).windows(8).position(|bytes| bytes == b"precious").unwrap();
    disk.corrupt(&name, at, 4);
    let error = store.get(Table::Desired, b"hurt").unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    for number in 0..100 {
        put(&store, Table::KeyValue, "n", &number.to_string().repeat(10)).unwrap();
    }
    assert_eq!(store.get(Table::Desired, b"kept").unwrap().as_deref(), Some(&b"well"[..]));
    assert_eq!(store.get(Table::Desired, b"hurt").unwrap(), None);
    assert!(store.damage()[0].to_string().contains("hurt"), "{}", store.damage()[0]);
    assert_eq!(disk.list(DAMAGED_DIR).unwrap(), [name]);
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    for capacity in (0..400_000).step_by(9_973) {
        let disk = FaultDisk::new();
        disk.set_capacity(Some(capacity));
        let (store, _) = open(&disk).unwrap();
        let mut expected = Content::new();
        let mut refused = 0;
        for number in 0..40_u32 {
            let (key, value) = (format!("key {number}"), "v".repeat(300));
            match put(&store, Table::KeyValue, &key, &value) {
                Ok(()) => {
                    expected.insert((Table::KeyValue as u8, key.into_bytes()), value.into_bytes());
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Storage);
                    assert!(error.text().contains("make room"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{capacity} bytes are not enough for 40 segments");
        assert_eq!(content(&store), expected);
        drop(store);
        let (store, damage) = open_again(&disk);
        assert_eq!(damage, []);
        assert_eq!(content(&store), expected, "nothing committed is lost");
        disk.set_capacity(None);
        put(&store, Table::Desired, "later", "there is room").unwrap();
    }
}

#[test]
fn room_can_be_made_on_a_full_disk_by_deleting() {
    let disk = FaultDisk::new();
    let (store, _) = Store::open(Settings::default(), Arc::new(disk.clone())).unwrap();
    put(&store, Table::KeyValue, "a", &"x".repeat(30_000)).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    put(&store, Table::KeyValue, "b", &"x".repeat(60_000)).unwrap_err();
    wait(store.commit(Batch::new().delete(Table::KeyValue, "a"))).unwrap();
}

#[test]
fn a_read_only_directory_is_read() {
    let disk = FaultDisk::new();
    let (acknowledged, _) = live(&disk);
    disk.set_read_only(true);
    let (store, damage) = open_again(&disk);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].kind, DamageKind::ReadOnly);
    assert_eq!(content(&store), acknowledged);
    let error = put(&store, Table::Desired, "a", "b").unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.text().contains("mount it read-write"), "{error}");
    assert_eq!(content(&store), acknowledged);
    disk.set_read_only(false);
    put(&store, Table::Desired, "a", "b").unwrap();
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    let disk = FaultDisk::new();
    live(&disk);
    let mut header = b"latticed\x02\0\0\0".to_vec();
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header.resize(100, 7);
    disk.plant("00ffffff-0123456789abcdef.log", &header);
    let before: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
    let error = loop {
        match open(&disk) {
            Err(error) if error.kind() == Kind::Conflict => std::thread::yield_now(),
            other => break other.map(|_| ()).unwrap_err(),
        }
    };
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.text().contains("newer version") && error.text().contains("format 2"), "{error}");
    let after: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = FaultDisk::new();
    let (store, _) = open(&disk).unwrap();
    for number in 0..30 {
        put(&store, Table::KeyValue, &format!("key {number:02}"), &"v".repeat(90)).unwrap();
    }
    drop(store);
    let mut names = disk.names();
    names.sort();
    assert!(names.len() > 3);
    disk.remove(&names[1]).unwrap();
    let (store, damage) = open_again(&disk);
    assert_eq!(damage.len(), 1);
    assert!(damage[0].reason.contains("records before this one are missing"), "{}", damage[0]);
    assert!(content(&store).len() >= 20);
    drop(store);
    assert_eq!(open_again(&disk).1, [], "reported once");
}

#[test]
fn limits_refuse_what_grows_and_let_deletes_pass() {
    let disk = FaultDisk::new();
    let settings = Settings { max_bytes: 1000, max_keys: 3, ..small() };
    let (store, _) = Store::open(settings, Arc::new(disk)).unwrap();
    let refused = |result: Result<()>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.text().contains(word), "{error}");
    };
    put(&store, Table::Desired, "a", &"x".repeat(900)).unwrap();
    refused(put(&store, Table::Desired, "b", &"x".repeat(200)), "bytes");
    put(&store, Table::Desired, "a", "x").unwrap();
    put(&store, Table::Desired, "b", "x").unwrap();
    put(&store, Table::Desired, "c", "x").unwrap();
    refused(put(&store, Table::Desired, "d", "x"), "4 keys");
    wait(store.commit(Batch::new().delete(Table::Desired, "a").put(Table::Desired, "d", "x"))).unwrap();
    refused(put(&store, Table::Desired, "a", &"x".repeat(5 << 20)), "at once");
}

#[test]
fn a_real_directory_is_private_locked_and_survives() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("deep/state");
    let disk = || Arc::new(RealDisk::new(&place));
    let (store, damage) = Store::open(Settings::default(), disk()).unwrap();
    assert_eq!(damage, []);
    let seed = wait(store.host_seed(|text| text.starts_with("SN"), || Ok("SNMINE".into()))).unwrap();
    let digest = wait(store.blobs().put(b"module".to_vec())).unwrap();
    let error = Store::open(Settings::default(), disk()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.text().contains(place.to_str().unwrap()), "{error}");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    assert_eq!(mode(&place.join("blobs")), 0o700);
    for entry in std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        assert_eq!(mode(&entry), 0o600, "{}", entry.display());
    }
    // A holder who lets go within the second that opening waits is no reason to refuse.
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(store);
    });
    let (store, damage) = Store::open(Settings::default(), disk()).unwrap();
    leaving.join().unwrap();
    assert_eq!(damage, []);
    let again = wait(store.host_seed(|text| text.starts_with("SN"), || panic!("there is one"))).unwrap();
    assert_eq!(again, seed);
    assert_eq!(wait(store.blobs().read(digest)).unwrap(), b"module");
}

#[test]
fn a_damaged_seed_is_healed_from_its_copy_and_only_replaced_when_both_are_gone() {
    let disk = FaultDisk::new();
    let (store, _) = open(&disk).unwrap();
    let usable = |text: &str| text.starts_with("SN");
    wait(store.host_seed(usable, || Ok("SNFIRST".into()))).unwrap();
    drop(store);
    let name = disk.names().pop().unwrap();
    let at = disk.content(&name).windows(7).position(|bytes| bytes == b"SNFIRST").unwrap();
    disk.corrupt(&name, at + 3, 1);
    let (store, damage) = open_again(&disk);
    assert_eq!(damage.len(), 1);
    assert_eq!(wait(store.host_seed(usable, || panic!("the copy is good"))).unwrap(), "SNFIRST");
    drop(store);
    let (store, damage) = open_again(&disk);
    assert_eq!(damage, []);
    assert_eq!(store.scan(Table::Host, b"").unwrap().len(), 2, "healed");
    put(&store, Table::Host, "seed", "no seed").unwrap();
    put(&store, Table::Host, "seed copy", "neither").unwrap();
    assert_eq!(wait(store.host_seed(usable, || Ok("SNSECOND".into()))).unwrap(), "SNSECOND");
}
