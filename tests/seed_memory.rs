//! The cluster's seed in the memory of a running host: in one place, and nowhere as text.

mod support;

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
};

use data_encoding::BASE32_NOPAD;
use support::{
    host::Sandbox,
    nats::{self, block_on},
    stage::Stage,
};

/// How often each of `needles` is in the memory that the process `id` may write.
fn copies(id: u32, needles: &[&[u8]]) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("this test needs root");
    let mut memory = fs::File::open(format!("/proc/{id}/mem")).expect("this test needs root");
    let mut found = vec![0; needles.len()];
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let place = words.nth(3).unwrap_or_default();
        if !rights.starts_with("rw") || place == "[vvar]" {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        let (from, to) = (number(from), number(to));
        let mut content = vec![0; usize::try_from(to - from).expect("it fits")];
        memory.seek(SeekFrom::Start(from)).expect("it can be read");
        // What the kernel has not given out yet cannot be read; nothing is there either.
        if memory.read_exact(&mut content).is_err() {
            continue;
        }
        for (needle, count) in needles.iter().zip(&mut found) {
            for (at, _) in content.windows(needle.len()).enumerate().filter(|(_, window)| window == needle) {
                println!("{id}: at {:x} in {line}", from + at as u64);
                *count += 1;
            }
        }
    }
    found
}

#[test]
fn a_running_host_keeps_its_cluster_seed_in_one_place() {
    block_on(async {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let text = nats::cluster().seed().expose().to_owned();
        // Two bytes say what it is, 32 are the seed, two are a checksum.
        let raw = BASE32_NOPAD.decode(text.as_bytes()).expect("a seed")[2..34].to_vec();
        // As the service is given it; what is in the environment the kernel keeps beside the program for its whole life.
        let credentials = sandbox.path("credentials");
        fs::create_dir(&credentials).expect("a folder");
        let file = credentials.join("latticed.cluster-seed");
        fs::write(&file, &text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("it is ours");
        let settings = [("CREDENTIALS_DIRECTORY", credentials.to_str().expect("text")), ("WASMCLOUD_CLUSTER_SEED", "")];
        let mut stage = Stage::of(sandbox, &settings).await;
        // It signs, checks, and tells the seed to a provider.
        stage.linked("teller").await;
        assert_eq!(stage.increment("teller").await, Ok(1));
        let host = stage.host().pid();
        let [texts, raws] = copies(host, &[text.as_bytes(), &raw])[..] else { panic!("two counts") };
        println!("host: {texts} times as text, {raws} times raw");
        assert!(texts == 0 && raws == 1, "{texts} times as text, {raws} times raw");
        let supervisor = support::stage::descendants(host)[0];
        let [texts, raws] = copies(u32::try_from(supervisor).expect("a pid"), &[text.as_bytes(), &raw])[..] else {
            panic!("two counts")
        };
        println!("supervisor: {texts} times as text, {raws} times raw");
        assert_eq!((texts, raws), (0, 0));
    });
}
