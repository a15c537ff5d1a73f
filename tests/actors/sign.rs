//! Signs the guests of the tests: the last step of `tests/actors/build`.
//!
//! `sign-guests COMPILED BUILT` takes the Rust guests from the folder COMPILED and the hostile ones from
//! `tests/actors/hostile/*.wat`, and writes the signed modules to BUILT.

use std::{error::Error, fs, path::Path};

use latticed::wire::interface::{HTTP_CLIENT, HTTP_SERVER, KEY_VALUE, LOGGING, MESSAGING, NUMBERGEN};

#[path = "../support/mod.rs"]
mod support;
use support::guests;

/// The Rust guests and the contracts they may use.
const GUESTS: [(&str, &[&str]); 8] = [
    ("callee", &[]),
    ("caller", &[HTTP_SERVER]),
    ("counter", &[HTTP_SERVER, KEY_VALUE]),
    ("echo", &[HTTP_SERVER]),
    ("echo_small", &[HTTP_SERVER]),
    ("fetch", &[HTTP_SERVER, HTTP_CLIENT]),
    ("lottery", &[HTTP_SERVER, LOGGING, NUMBERGEN]),
    ("mailbox", &[HTTP_SERVER, MESSAGING]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [compiled, built] = arguments.as_slice() else {
        return Err("usage: sign-guests COMPILED BUILT".into());
    };
    let (compiled, built) = (Path::new(compiled), Path::new(built));
    fs::create_dir_all(built.join("hostile"))?;
    for (name, contracts) in GUESTS {
        let wasm = fs::read(compiled.join(name).with_extension("wasm"))?;
        write(built, name, &guests::sign(name, contracts, &wasm)?)?;
    }
    let hostile = fs::read_dir(guests::sources().join("hostile"))?;
    let mut hostile = hostile.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    hostile.sort();
    for path in hostile {
        let name = format!("hostile/{}", path.file_stem().and_then(|stem| stem.to_str()).ok_or("odd file name")?);
        let wasm = wat::parse_file(&path)?;
        write(built, &name, &guests::sign(&name, &[HTTP_SERVER, LOGGING, NUMBERGEN], &wasm)?)?;
    }
    Ok(())
}

fn write(built: &Path, name: &str, signed: &[u8]) -> std::io::Result<()> {
    println!("{:>8} bytes  {}  {name}", signed.len(), guests::key(name));
    fs::write(built.join(name).with_extension("wasm"), signed)
}
