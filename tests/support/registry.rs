//! A real registry (docker-registry) as a child process, and the pushing side as `wash push` does it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use latticed::store::Digest;
use serde_json::json;

use super::{certificates::Authority, http::free_address, nats::eventually};

/// Media type of a module's layer, as `wash push` writes it.
pub const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// Media type of a provider archive's layer, as `wash push` writes it.
pub const ARCHIVE: &str = "application/vnd.wasmcloud.provider.archive.layer.v1+par";

/// The account of registries that want one.
pub const USER: &str = "operator";
/// Its password.
pub const PASSWORD: &str = "swordfish-9";

/// A registry on a port of its own, with its files in a folder of its own.
pub struct Registry {
    address: SocketAddr,
    folder: tempfile::TempDir,
    child: Option<Child>,
    account: bool,
    tls: bool,
}

impl Registry {
    /// One for everybody, without TLS.
    pub fn open() -> Self {
        Self::start(false, false)
    }

    /// One that wants [`USER`] and [`PASSWORD`].
    pub fn with_account() -> Self {
        Self::start(true, false)
    }

    /// One with TLS, its certificate signed by [`Registry::authority`].
    pub fn with_tls() -> Self {
        Self::start(false, true)
    }

    fn start(account: bool, tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let address = free_address();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n",
            path("images")
        );
        if tls {
            let authority = Authority::new("authority of the registry");
            fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the temporary folder is writable");
            authority.issue(folder.path(), "registry");
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                path("registry.pem"),
                path("registry.key")
            ));
        }
        if account {
            let output = Command::new("htpasswd")
                .args(["-nbB", USER, PASSWORD])
                .output()
                .expect("htpasswd must be installed for these tests (Debian: apt-get install apache2-utils)");
            fs::write(folder.path().join("accounts"), output.stdout).expect("the temporary folder is writable");
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path("accounts")));
        }
        fs::write(folder.path().join("config.yml"), config).expect("the temporary folder is writable");
        let mut registry = Self { address, folder, child: None, account, tls };
        registry.resume();
        registry
    }

    /// Starts it again, and waits until it answers.
    pub fn resume(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("the temporary folder is writable");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("docker-registry must be installed for these tests (Debian: apt-get install docker-registry)");
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.address.port()));
        eventually("the registry answers", || TcpStream::connect(address).is_ok());
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the registry can be killed");
            child.wait().expect("the registry can be awaited");
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name in references: `127.0.0.1:PORT`.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// PEM file of the authority that signed its certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Pushes `content` as the one layer of `repository:tag`; answers the digest of the manifest.
    pub fn push(&self, repository: &str, tag: &str, media_type: &str, content: &[u8]) -> Digest {
        let config = b"{}";
        self.push_blob(repository, config);
        self.push_blob(repository, content);
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.wasmcloud.actor.archive.config", "digest": named(config), "size": config.len()},
            "layers": [{"mediaType": media_type, "digest": named(content), "size": content.len()}],
        });
        self.push_manifest(
            repository,
            tag,
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    /// Pushes an index with one manifest for each platform, `OS/ARCHITECTURE`.
    pub fn push_index(&self, repository: &str, tag: &str, manifests: &[(Digest, &str)]) -> Digest {
        let entries: Vec<_> = manifests
            .iter()
            .map(|(digest, platform)| {
                let (os, architecture) = platform.split_once('/').expect("OS/ARCHITECTURE");
                json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{digest}"), "size": self.manifest_length(repository, *digest),
                    "platform": {"os": os, "architecture": architecture},
                })
            })
            .collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        self.push_manifest(repository, tag, "application/vnd.oci.image.index.v1+json", index.to_string().as_bytes())
    }

    fn manifest_length(&self, repository: &str, digest: Digest) -> usize {
        let request = self.agent().get(self.url(&format!("/v2/{repository}/manifests/sha256:{digest}")));
        let request = self.authorised(request.header("accept", "application/vnd.oci.image.manifest.v1+json"));
        request.call().expect("it was pushed").body_mut().read_to_vec().expect("a manifest").len()
    }

    /// Pushes any manifest.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) -> Digest {
        let request =
            self.agent().put(self.url(&format!("/v2/{repository}/manifests/{tag}"))).header("content-type", media_type);
        let response = self.authorised(request).send(manifest).expect("the registry takes the manifest");
        assert_eq!(response.status().as_u16(), 201);
        Digest::of(manifest)
    }

    fn push_blob(&self, repository: &str, content: &[u8]) {
        let request = self.agent().post(self.url(&format!("/v2/{repository}/blobs/uploads/")));
        let begun = self.authorised(request).send_empty().expect("the registry takes an upload");
        assert_eq!(begun.status().as_u16(), 202);
        let place = begun.headers()["location"].to_str().expect("an address").to_owned();
        let place = if place.starts_with('/') { self.url(&place) } else { place };
        let mark = if place.contains('?') { '&' } else { '?' };
        let request = self.agent().put(format!("{place}{mark}digest={}", named(content)));
        let response = self
            .authorised(request.header("content-type", "application/octet-stream"))
            .send(content)
            .expect("the registry takes the blob");
        assert_eq!(response.status().as_u16(), 201);
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls { "https" } else { "http" }, self.address)
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match self.account {
            true => {
                let account = data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
                request.header("authorization", format!("Basic {account}"))
            }
            false => request,
        }
    }

    fn agent(&self) -> ureq::Agent {
        let mut config = ureq::Agent::config_builder().proxy(None);
        if self.tls {
            let pem = fs::read(self.authority()).expect("it was written");
            let root = ureq::tls::Certificate::from_pem(&pem).expect("PEM");
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            config = config.tls_config(
                ureq::tls::TlsConfig::builder()
                    .unversioned_rustls_crypto_provider(provider)
                    .root_certs(ureq::tls::RootCerts::new_with_certs(&[root]))
                    .build(),
            );
        }
        config.build().into()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn named(content: &[u8]) -> String {
    format!("sha256:{}", Digest::of(content))
}
