//! The state store against a model of a disk that tears, lies, fills up and loses power, and against a real one.

use std::sync::Arc;

use latticed::{
    error::Result,
    store::{Batch, Damage, FaultDisk, Settings, Store, Table},
};

/// Small segments, so that a short scenario sees new segments and cleaning.
fn small() -> Settings {
    Settings { segment_bytes: 600, ..Settings::default() }
}

fn open(disk: &FaultDisk) -> Result<(Store, Vec<Damage>)> {
    Store::open(small(), Arc::new(disk.clone()))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(future)
}

fn put(store: &Store, table: Table, key: &str, value: &str) -> Result<()> {
    wait(store.commit(Batch::new().put(table, key, value)))
}

fn text(store: &Store, table: Table, key: &str) -> Option<String> {
    store.get(table, key.as_bytes()).expect("readable").map(|value| String::from_utf8(value).expect("text"))
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let disk = FaultDisk::new();
    let (store, damage) = open(&disk).unwrap();
    assert_eq!(damage, []);
    put(&store, Table::Desired, "actor", "one").unwrap();
    wait(
        store
            .commit(Batch::new().put(Table::Link, "a", "1").put(Table::Link, "b", "2").delete(Table::Desired, "actor")),
    )
    .unwrap();
    put(&store, Table::Claims, "a", "not a link").unwrap();
    drop(store);
    let (store, damage) = open(&disk).unwrap();
    assert_eq!(damage, []);
    assert_eq!(text(&store, Table::Desired, "actor"), None);
    assert_eq!(store.scan(Table::Link, b"").unwrap(), [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
}
