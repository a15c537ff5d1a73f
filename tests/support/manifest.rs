//! Application manifests that tests and benchmarks need in numbers, written as users write them.

use std::{fmt::Write, net::SocketAddr, path::Path};

/// A manifest under construction.
#[derive(Debug)]
pub struct Manifest {
    name: String,
    components: String,
}

impl Manifest {
    /// A manifest with the HTTP server and the key-value store of this host.
    pub fn new(name: &str) -> Self {
        let mut manifest = Self::empty(name);
        manifest.capability("httpserver", "wasmcloud:httpserver");
        manifest.capability("keyvalue", "wasmcloud:keyvalue");
        manifest
    }

    /// A manifest with nothing in it yet.
    pub fn empty(name: &str) -> Self {
        Self { name: name.to_string(), components: String::new() }
    }

    /// Adds the provider `builtin:NAME`.
    pub fn capability(&mut self, name: &str, contract: &str) -> &mut Self {
        self.capability_from(name, contract, &format!("builtin:{name}"))
    }

    /// Adds the provider whose archive is behind `reference`.
    pub fn capability_from(&mut self, name: &str, contract: &str, reference: &str) -> &mut Self {
        self.component(
            name,
            &format!(
                "type: capability\n      properties:\n        image: {reference:?}\n        contract: {contract}\n"
            ),
        )
    }

    /// Adds the actor in the file `module`, `replicas` times.
    pub fn actor(&mut self, name: &str, module: &Path, replicas: u16) -> &mut Self {
        self.actor_from(name, &format!("file://{}", module.display()), replicas)
    }

    /// Adds the actor behind `reference`, `replicas` times.
    pub fn actor_from(&mut self, name: &str, reference: &str, replicas: u16) -> &mut Self {
        self.component(
            name,
            &format!(
                "type: actor\n      properties:\n        image: {reference:?}\n      traits:\n        \
                 - type: spreadscaler\n          properties:\n            replicas: {replicas}\n"
            ),
        )
    }

    /// Adds the actor behind `reference`, once, signed by `issuer`.
    pub fn actor_of(&mut self, name: &str, reference: &str, issuer: &str, replicas: u16) -> &mut Self {
        self.component(
            name,
            &format!(
                "type: actor\n      properties:\n        image: {reference:?}\n        issuer: {issuer}\n      traits:\n        \
                 - type: spreadscaler\n          properties:\n            replicas: {replicas}\n"
            ),
        )
    }

    /// Links the actor added last to `target`.
    pub fn link(&mut self, target: &str, values: &[(&str, &str)]) -> &mut Self {
        let _ =
            write!(self.components, "        - type: linkdef\n          properties:\n            target: {target}\n");
        for (number, (name, value)) in values.iter().enumerate() {
            if number == 0 {
                self.components.push_str("            values:\n");
            }
            let _ = writeln!(self.components, "              {name}: {value:?}");
        }
        self
    }

    /// Links the actor added last to the HTTP server, to be reached at `address`.
    pub fn http(&mut self, address: SocketAddr) -> &mut Self {
        self.link("httpserver", &[("address", &address.to_string())])
    }

    fn component(&mut self, name: &str, rest: &str) -> &mut Self {
        let _ = write!(self.components, "    - name: {name}\n      {rest}");
        self
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        format!(
            "apiVersion: core.oam.dev/v1beta1\nkind: Application\nmetadata:\n  name: {}\n  annotations:\n    \
             version: v0.1.0\n    description: made by a test\nspec:\n  components:\n{}",
            self.name, self.components
        )
    }
}
