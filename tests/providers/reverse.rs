//! A whole provider: turns texts round for the actors linked to it. `values` of a link may hold a word to add.
//!
//! `cargo build --example reverse-provider`, pack it with `latticed archive create --capid example:reverse …`, start it with
//! any host of the 0.6x line.

use std::process::ExitCode;

use latticed::{
    error::Result,
    sdk::{self, Call, Provider},
};

struct Reverse;

impl Provider for Reverse {
    async fn call(&self, call: Call) -> Result<Vec<u8>> {
        match call.operation.as_str() {
            "Reverse.Text" => {
                let text: String = call.request()?;
                let added = call.link.value("added").unwrap_or_default();
                sdk::encode(&text.chars().rev().chain(added.chars()).collect::<String>())
            }
            _ => Err(call.not_handled()),
        }
    }
}

fn main() -> ExitCode {
    sdk::run("reverse", |_lattice| Ok(Reverse))
}
