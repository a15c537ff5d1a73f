//! Actors that come from real registries, over links and through servers that do what links and servers do.

mod support;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use latticed::{
    artifact::{Artifacts, Download, Fetched, Images, Limit, Reference, RegistryLogin, Remote, Requester, Settings},
    error::{Error, Kind},
    store::{self, Digest, RealDisk, Store},
    task,
    wire::interface::HTTP_SERVER,
};
use rustix::process::Signal;
use support::{
    dark::Dark,
    guests,
    host::{Host, Sandbox},
    http::{free_address, wait_for_200},
    manifest::Manifest,
    mischief::{Deed, Mischief},
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
    process::{bytes_written, memory},
    registry::{ARCHIVE, MODULE, PASSWORD, Registry, USER},
};

const LIMIT: Limit = Limit { bytes: 4 << 20, setting: "WASMCLOUD_TEST_LIMIT" };

/// A store with the sources of a host, in a folder of its own.
struct Board {
    folder: tempfile::TempDir,
    settings: Settings,
    artifacts: Arc<Artifacts>,
}

impl Board {
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let artifacts = open(folder.path(), &settings);
        Self { folder, settings, artifacts }
    }

    /// One that reaches the registry at `name` without TLS, and gives up soon.
    fn without_tls(name: &str) -> Self {
        Self::new(Settings { insecure: vec![name.to_owned()], attempts: 3, ..Settings::default() })
    }

    /// The same folder, as the next process finds it.
    fn again(self) -> Self {
        let Self { folder, settings, artifacts } = self;
        drop(artifacts);
        let artifacts = open(folder.path(), &settings);
        Self { folder, settings, artifacts }
    }

    fn fetch(&self, reference: &str) -> Result<Fetched, Error> {
        let reference = Reference::parse(reference)?;
        task::block_on(self.artifacts.fetch(&reference, Requester::Operator, "an actor", LIMIT))
    }

    fn refusal(&self, reference: &str) -> Error {
        let error = self.fetch(reference).expect_err("it cannot be fetched");
        assert!(error.text().contains(reference), "the reference is named: {error}");
        error
    }

    fn blobs(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path().join("blobs")).into_iter().flatten();
        names.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

fn open(folder: &Path, settings: &Settings) -> Arc<Artifacts> {
    let store = Store::open(store::Settings::default(), Arc::new(RealDisk::new(folder)));
    let artifacts = Artifacts::new(store.expect("the folder can be used").0, settings.clone());
    let download = Arc::new(Download::new(settings.clone()));
    artifacts.register(Remote::Http, download.clone());
    artifacts.register(Remote::Https, download);
    let images = Images::new(settings.clone(), artifacts.credentials().clone());
    artifacts.register(Remote::Image, Arc::new(images));
    Arc::new(artifacts)
}

/// Bytes that differ from place to place, so that a shift or a hole is seen.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8 ^ (place / 1000) as u8).collect()
}

#[test]
fn what_wash_pushes_comes_in_once_and_stays() {
    let mut registry = Registry::open();
    let (module, archive) = (content(70_000), content(90_001));
    let manifest = registry.push("some/echo", "0.1.0", MODULE, &module);
    registry.push("kv", "0.2.0", ARCHIVE, &archive);
    let mischief = Mischief::before(registry.address());
    let name = mischief.address().to_string();
    let board = Board::without_tls(&name);
    let tag = format!("{name}/some/echo:0.1.0");

    assert_eq!(board.fetch(&tag).expect("it is there").bytes, module);
    assert_eq!(board.fetch(&format!("{name}/kv:0.2.0")).expect("it is there").bytes, archive);
    // Registries know lower case only, references may have both.
    assert_eq!(board.fetch(&format!("{name}/Some/Echo:0.1.0")).expect("it is there").bytes, module);
    mischief.forget();
    assert_eq!(board.fetch(&tag).expect("it is there").bytes, module);
    let asked = mischief.requests();
    assert!(asked.iter().all(|head| head.contains("/manifests/")), "the layer does not come again: {asked:?}");

    // The same content by its manifest's digest, and again in the next process: nobody is asked.
    mischief.forget();
    registry.stop();
    let pinned = format!("{tag}@sha256:{manifest}");
    assert_eq!(board.fetch(&pinned).expect("it is here").bytes, module);
    let board = board.again();
    assert_eq!(board.fetch(&pinned).expect("it is here").bytes, module);
    assert_eq!(mischief.requests(), Vec::<String>::new());
    // A tag may have moved: the copy is used because nobody answers.
    assert_eq!(board.fetch(&tag).expect("a copy is here").bytes, module);
    assert_eq!(board.refusal(&format!("{name}/other:1")).kind(), Kind::Unavailable);
}

#[test]
fn a_moved_tag_a_wrong_digest_an_index_and_what_is_no_artifact() {
    let registry = Registry::open();
    let (one, two) = (content(5000), content(6000));
    let old = registry.push("echo", "1", MODULE, &one);
    let board = Board::without_tls(&registry.name());
    let at = |rest: &str| format!("{}/{rest}", registry.name());
    assert_eq!(board.fetch(&at("echo:1")).expect("it is there").bytes, one);
    let new = registry.push("echo", "1", MODULE, &two);
    assert_eq!(board.fetch(&at("echo:1")).expect("it is there").bytes, two);
    assert_eq!(board.fetch(&at(&format!("echo@sha256:{old}"))).expect("it is there").bytes, one);

    let index = registry.push_index("echo", "many", &[(old, "linux/s390x"), (new, "wasip1/wasm")]);
    assert_eq!(board.fetch(&at("echo:many")).expect("one is for us").bytes, two);
    assert_eq!(board.fetch(&at(&format!("echo@sha256:{index}"))).expect("one is for us").bytes, two);
    registry.push_index("echo", "foreign", &[(old, "linux/s390x"), (new, "linux/ppc64le")]);
    assert!(board.refusal(&at("echo:foreign")).text().contains("linux/s390x"));

    registry.push("image", "1", "application/vnd.oci.image.layer.v1.tar+gzip", &one);
    let error = board.refusal(&at("image:1"));
    assert!(error.kind() == Kind::Invalid && error.text().contains("wash push"), "{error}");
    let missing = board.refusal(&at(&format!("echo@sha256:{}", Digest::of(b"nothing"))));
    assert!(missing.kind() == Kind::NotFound && missing.text().contains("404"), "{missing}");
    let error = board.refusal(&at("echo:9"));
    assert!(
        error.kind() == Kind::NotFound && error.text().contains("the manifest 9 of the repository echo"),
        "{error}"
    );
    registry.push("big", "1", MODULE, &content(LIMIT.bytes as usize + 1));
    let error = board.refusal(&at("big:1"));
    assert!(error.kind() == Kind::Limit && error.text().contains(LIMIT.setting), "{error}");

    for reference in ["echo:latest", "echo"] {
        let error = board.refusal(&at(reference));
        assert!(error.kind() == Kind::Denied && error.text().contains("WASMCLOUD_OCI_ALLOW_LATEST"), "{error}");
    }
    registry.push("echo", "latest", MODULE, &one);
    let allowing = Board::new(Settings { allow_latest: true, ..board.settings.clone() });
    assert_eq!(allowing.fetch(&at("echo:latest")).expect("it is allowed").bytes, one);
    let strict = Board::new(Settings { require_digest: true, ..board.settings.clone() });
    let error = strict.refusal(&at("echo:1"));
    assert!(error.kind() == Kind::Denied && error.text().contains("WASMCLOUD_REQUIRE_DIGEST"), "{error}");
    assert_eq!(strict.fetch(&at(&format!("echo:1@sha256:{new}"))).expect("it has one").bytes, two);
}

#[test]
fn a_registry_that_wants_a_login_gets_it_and_says_who_was_refused() {
    let registry = Registry::with_account();
    let module = content(3000);
    registry.push("team/echo", "1", MODULE, &module);
    let reference = format!("{}/team/echo:1", registry.name());
    let board = Board::without_tls(&registry.name());
    let error = board.refusal(&reference);
    assert_eq!(error.kind(), Kind::Denied);
    for part in ["answered 401", "the repository team/echo", "without a login", "OCI_REGISTRY_USER"] {
        assert!(error.text().contains(part), "{part} is missing: {error}");
    }
    board.artifacts.credentials().configure([(registry.name(), RegistryLogin::basic(USER, "wrong-7"))]);
    let error = board.refusal(&reference);
    assert!(error.text().contains(&format!("with user {USER:?}")), "{error}");
    assert!(!error.text().contains("wrong-7"), "{error}");
    board.artifacts.credentials().configure([(registry.name(), RegistryLogin::basic(USER, PASSWORD))]);
    assert_eq!(board.fetch(&reference).expect("the login is right").bytes, module);
}

/// A registry that sends for a token, and a token service, made of a real one behind planned answers.
#[test]
fn each_challenge_is_answered_where_it_comes() {
    let registry = Registry::open();
    let module = content(5000);
    registry.push("private/echo", "1", MODULE, &module);
    let door = Mischief::before(registry.address());
    let name = door.address().to_string();
    let board = Board::without_tls(&name);
    let asks = |scope: &str| {
        let ways = format!("Negotiate, BASIC realm=\"x\", BEARER realm=\"http://{name}/token\",service=\"s\"{scope}");
        Deed::Answer(401, vec![format!("WWW-Authenticate: {ways}")], b"{}".to_vec())
    };
    let gives = |text: &str| Deed::Answer(200, Vec::new(), text.as_bytes().to_vec());
    // Open at /v2/: each repository asks by itself, for the manifest with a scope, for the layer without.
    door.plan("/manifests/", [asks(",scope=\"repository:private/echo:pull\"")]);
    door.plan("/blobs/", [asks("")]);
    door.plan("/token", [gives("{\"token\":\"\",\"access_token\":\"one\"}"), gives("{\"token\":\"two\"}")]);
    let reference = format!("{name}/private/echo:1");
    assert_eq!(board.fetch(&reference).expect("it logs in").bytes, module);
    let asked = door.requests();
    let with = |path: &str, header: &str| asked.iter().any(|head| head.contains(path) && head.contains(header));
    assert!(
        with("/manifests/", "authorization: bearer one") && with("/blobs/", "authorization: bearer two"),
        "{asked:?}"
    );
    let tokens = asked.iter().filter(|head| head.contains("/token")).count();
    assert_eq!(tokens, 2, "{asked:?}");
    assert!(
        asked.iter().filter(|head| head.contains("/token")).all(|head| head.contains("scope=repository%3aprivate"))
    );

    // What is refused with the token that it asked for is refused.
    door.forget();
    door.plan("/manifests/", std::iter::repeat_with(|| asks("")).take(20));
    door.plan("/token", [gives("{\"access_token\":\"three\"}")]);
    let other = format!("{name}/private/other:1");
    assert_eq!(board.refusal(&other).kind(), Kind::Denied);
    assert_eq!(door.requests().len(), 3, "{:?}", door.requests());
}

#[test]
fn a_token_is_had_from_where_the_registry_says_but_never_over_plain_http_for_a_registry_with_tls() {
    let registry = Registry::open();
    let module = content(3000);
    registry.push("team/echo", "1", MODULE, &module);
    let mischief = Mischief::before(registry.address());
    let name = mischief.address().to_string();
    let challenge = |status| {
        let header = format!(
            "WWW-Authenticate: Bearer realm=\"http://{name}/token\",service=\"test\",scope=\"repository:team/echo:pull\""
        );
        Deed::Answer(status, vec![header], br#"{"errors":[{"message":"authentication required"}]}"#.to_vec())
    };
    let token = || Deed::Answer(200, Vec::new(), br#"{"token":"opaque-5"}"#.to_vec());
    mischief.plan("/manifests/", [challenge(401)]);
    mischief.plan("/blobs/", [challenge(401)]);
    mischief.plan("/token", [token(), token()]);
    let board = Board::without_tls(&name);
    board.artifacts.credentials().configure([(name.clone(), RegistryLogin::basic(USER, PASSWORD))]);
    assert_eq!(board.fetch(&format!("{name}/team/echo:1")).expect("the token opens it").bytes, module);
    let requests = mischief.requests();
    let for_token: Vec<_> = requests.iter().filter(|head| head.contains("/token?")).collect();
    assert!(
        for_token.iter().all(
            |head| head.contains("scope=repository%3ateam%2fecho%3apull") && head.contains("authorization: basic ")
        ),
        "{for_token:?}"
    );
    let layer = requests.iter().rfind(|head| head.contains("/blobs/")).expect("the layer was asked for");
    assert!(layer.contains("authorization: bearer opaque-5"), "{layer}");

    mischief.forget();
    mischief.plan("/manifests/", [challenge(401)]);
    mischief.plan("/token", [Deed::Answer(403, Vec::new(), b"no such account".to_vec())]);
    let error = Board::without_tls(&name).refusal(&format!("{name}/team/echo:1"));
    assert!(error.text().contains("token service") && error.text().contains("no such account"), "{error}");

    // With TLS to the registry, a login over plain HTTP is not sent.
    let mut secure = Registry::with_tls();
    secure.push("team/echo", "1", MODULE, &module);
    let settings = Settings { ca_file: Some(secure.authority()), attempts: 1, ..Settings::default() };
    let reference = format!("{}/team/echo:1", secure.name());
    assert_eq!(Board::new(settings.clone()).fetch(&reference).expect("its authority is known").bytes, module);
    let error = Board::new(Settings { ca_file: None, ..settings.clone() }).refusal(&reference);
    assert!(error.kind() == Kind::Unavailable && error.text().contains("WASMCLOUD_ARTIFACT_CA_FILE"), "{error}");
    let error = Board::without_tls(&secure.name()).refusal(&reference);
    assert!(error.text().contains("answered 400"), "plain HTTP to a port with TLS: {error}");
    secure.stop();
}

/// What happens, the reference, whose answer it happens to, what it is, how it ends, and what the error says.
type Bad<'a> = (&'a str, &'a str, &'static str, Deed, Kind, &'a [&'a str]);

#[test]
fn each_thing_that_happens_on_the_way_ends_well_or_in_its_own_error() {
    let registry = Registry::open();
    let module = content(300_000);
    let manifest = registry.push("echo", "1", MODULE, &module);
    let mischief = Mischief::before(registry.address());
    let name = mischief.address().to_string();
    let tag = format!("{name}/echo:1");
    let settings =
        Settings { insecure: vec![name.clone()], attempts: 3, idle: Duration::from_millis(500), ..Settings::default() };
    let answer = |status, headers: &[&str], body: &[u8]| {
        Deed::Answer(status, headers.iter().map(ToString::to_string).collect(), body.to_vec())
    };
    const LAYER: &str = "/blobs/";
    const MANIFEST: &str = "/manifests/";

    // In success after another attempt: what is planned, and the most bytes that may come beside the module's own.
    let redirect = format!("Location: http://{}/v2/echo/blobs/sha256:{}", registry.address(), Digest::of(&module));
    let well: Vec<(&str, &'static str, Vec<Deed>, u64)> = vec![
        ("cut", LAYER, vec![Deed::Cut(100_000), Deed::Cut(7), Deed::Cut(100_000)], 0),
        ("ended early", LAYER, vec![Deed::Truncate(200_000)], 0),
        ("fell silent", LAYER, vec![Deed::Silence(150_000)], 0),
        ("no ranges", LAYER, vec![Deed::Cut(100_000), Deed::IgnoreRange], 100_000),
        ("cut before the first byte", LAYER, vec![Deed::Cut(0), Deed::Cut(0)], 0),
        ("429", LAYER, vec![answer(429, &["Retry-After: 1"], b"")], 0),
        (
            "503 with a date",
            LAYER,
            vec![answer(
                503,
                &["Date: Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After: Wed, 21 Oct 2015 07:28:01 GMT"],
                b"",
            )],
            0,
        ),
        ("500", LAYER, vec![answer(500, &[], b"<html>oops</html>")], 0),
        ("manifest cut", MANIFEST, vec![Deed::Cut(10)], 0),
        ("manifest 429", MANIFEST, vec![answer(429, &["Retry-After: 1"], b"")], 0),
        ("redirected", LAYER, vec![answer(307, &[&redirect], b"")], 0),
    ];
    for (what, text, deeds, extra) in well {
        mischief.forget();
        mischief.plan(text, deeds);
        let board = Board::new(settings.clone());
        let fetched = board.fetch(&tag).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(fetched.bytes == module, "{what}: other bytes");
        let over = mischief.sent().saturating_sub(module.len() as u64);
        // The manifest, and what was on its way when the connection was cut.
        assert!(over <= extra + 40_000, "{what}: {over} bytes too many");
        assert_eq!(board.blobs(), [Digest::of(&module).to_string()], "{what}");
        if what == "redirected" {
            assert!(mischief.requests().iter().filter(|head| head.contains(LAYER)).count() == 1);
        }
    }

    // In an error of its own: what is planned for every attempt, the kind, and what the error says.
    let giant = vec![b'x'; 300_000];
    let other = br#"{"schemaVersion":2,"layers":[]}"#;
    let pinned = format!("{tag}@sha256:{manifest}");
    let badly: Vec<Bad> = vec![
        (
            "corrupt",
            &tag,
            LAYER,
            Deed::Corrupt(1234),
            Kind::Invalid,
            &["have the digest", "expected is", "nothing of it was kept"],
        ),
        (
            "endless",
            &tag,
            LAYER,
            Deed::Endless,
            Kind::Invalid,
            &["more than the 300000 bytes that its source announced"],
        ),
        (
            "endless manifest",
            &tag,
            MANIFEST,
            Deed::Endless,
            Kind::Limit,
            &["the manifest of the registry", "larger than 262144"],
        ),
        ("giant manifest", &tag, MANIFEST, answer(200, &[], &giant), Kind::Limit, &["larger than 262144"]),
        (
            "other manifest",
            &pinned,
            MANIFEST,
            answer(200, &[], other),
            Kind::Invalid,
            &["expected is", "changed on its way"],
        ),
        (
            "a page",
            &tag,
            MANIFEST,
            answer(200, &["Content-Type: text/html"], b"<html>"),
            Kind::Invalid,
            &["text/html", "cannot be read"],
        ),
        (
            "403",
            &tag,
            LAYER,
            answer(403, &[], br#"{"errors":[{"code":"DENIED","message":"quota\nused up"}]}"#),
            Kind::Denied,
            &["answered 403", "a layer of the repository echo", "quota used up"],
        ),
        ("418", &tag, LAYER, answer(418, &[], b"short and stout"), Kind::Invalid, &["answered 418", "short and stout"]),
        (
            "503 for ever",
            &tag,
            LAYER,
            answer(503, &[], b""),
            Kind::Unavailable,
            &["answered 503", "given up after 3 attempts"],
        ),
        (
            "429 for hours",
            &tag,
            LAYER,
            answer(429, &["Retry-After: 7200"], b""),
            Kind::Unavailable,
            &["asked too often"],
        ),
        (
            "redirected for ever",
            &tag,
            LAYER,
            answer(302, &["Location: /v2/echo/blobs/again"], b""),
            Kind::Invalid,
            &["redirects more than 5 times"],
        ),
        (
            "silent for ever",
            &tag,
            LAYER,
            Deed::Silence(0),
            Kind::Timeout,
            &["fell silent", "WASMCLOUD_ARTIFACT_IDLE_MS"],
        ),
        (
            "another part",
            &tag,
            LAYER,
            answer(206, &["Content-Range: bytes 5-9/10"], b"56789"),
            Kind::Invalid,
            &["answered 206"],
        ),
    ];
    for (what, reference, text, deed, kind, says) in badly {
        mischief.forget();
        mischief.plan(text, vec![deed; 20]);
        let board = Board::new(settings.clone());
        let error = board.refusal(reference);
        println!("{what}: {error}");
        assert_eq!(error.kind(), kind, "{what}: {error}");
        for part in says {
            assert!(error.text().contains(part), "{what}: {part:?} is missing: {error}");
        }
        assert_eq!(board.blobs(), Vec::<String>::new(), "{what}: nothing stays");
        // And then the link is good again.
        mischief.forget();
        assert!(board.fetch(&tag).unwrap_or_else(|error| panic!("after {what}: {error}")).bytes == module);
    }
}

#[test]
fn a_download_goes_on_in_the_next_process() {
    let registry = Registry::open();
    let module = content(900_000);
    registry.push("echo", "1", MODULE, &module);
    let mischief = Mischief::before(registry.address());
    let name = mischief.address().to_string();
    let tag = format!("{name}/echo:1");
    let board = Board::new(Settings { insecure: vec![name.clone()], attempts: 1, ..Settings::default() });
    mischief.plan("/blobs/", [Deed::Cut(600_000), Deed::Cut(0)]);
    assert_eq!(board.refusal(&tag).kind(), Kind::Unavailable);
    assert!(board.blobs().iter().all(|name| name.ends_with(".part")), "{:?}", board.blobs());
    let board = board.again();
    mischief.forget();
    assert!(board.fetch(&tag).expect("the link is good").bytes == module);
    let range = mischief.requests().iter().find_map(|head| {
        head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<u64>().ok())
    });
    assert!(range.is_some_and(|start| start > 500_000), "{range:?}");
    mischief.forget();
    let start = Instant::now();
    let digest = board.artifacts.records().find(&tag).and_then(|record| record.manifest()).expect("it is remembered");
    let again = board.fetch(&format!("{tag}@sha256:{digest}")).expect("it is here");
    println!("{} bytes that are here, by their digest: {:?}", again.bytes.len(), start.elapsed());
    assert_eq!(mischief.requests(), Vec::<String>::new());
    assert_eq!(board.blobs().len(), 1);
}

#[test]
fn many_boards_worth_of_questions_cause_one_download_and_the_rate_is_kept() {
    let registry = Registry::open();
    let module = content(120_000);
    registry.push("echo", "1", MODULE, &module);
    registry.push("other/echo", "2", MODULE, &module);
    let mischief = Mischief::before(registry.address());
    let name = mischief.address().to_string();
    let settings = Settings { insecure: vec![name.clone()], bytes_per_second: 100_000, ..Settings::default() };
    let board = Board::new(settings);
    let start = Instant::now();
    let references = [format!("{name}/echo:1"), format!("{name}/other/echo:2")]
        .map(|text| Reference::parse(&text).expect("an image"));
    task::block_on(async {
        let asked =
            (0..8).map(|number| board.artifacts.fetch(&references[number % 2], Requester::Operator, "an actor", LIMIT));
        let seen = async {
            loop {
                if let [transfer, ..] = &*board.artifacts.transfers()
                    && transfer.received > 0
                {
                    return transfer.clone();
                }
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        };
        let (all, seen) = smol::future::zip(futures_util::future::join_all(asked), seen).await;
        assert!(all.into_iter().all(|fetched| fetched.is_ok_and(|fetched| fetched.bytes == module)));
        assert!(seen.total == Some(120_000) && seen.attempt == 1 && seen.source.contains("registry"), "{seen:?}");
    });
    let layers = mischief.requests().iter().filter(|head| head.contains("/blobs/")).count();
    assert_eq!(layers, 1);
    // 1.2 s at that rate; a slow machine takes longer.
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(board.artifacts.transfers(), []);
}

/// A module of `length` bytes or a little more that does what `echo` does.
fn large_echo(length: usize) -> Vec<u8> {
    let mut wasm = fs::read(guests::module_path("echo")).expect("the guest is built");
    let rest = length.saturating_sub(wasm.len());
    // A custom section: nobody reads it, and no compression on the way makes it smaller.
    let mut section = b"\x07padding".to_vec();
    let mut state = 1_u64;
    section.extend(
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(rest),
    );
    wasm.push(0);
    let mut size = section.len();
    while size >= 0x80 {
        wasm.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    wasm.push(size as u8);
    wasm.extend(section);
    guests::sign("echo", &[HTTP_SERVER], &wasm).expect("it can be signed")
}

#[test]
fn an_actor_started_from_afar_by_its_image_runs_again_after_a_power_cut_with_nobody_there() {
    block_on(async {
        let (sandbox, mut server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let mut registry = Registry::with_account();
        registry.push(
            "team/echo",
            "0.1.0",
            MODULE,
            &fs::read(guests::module_path("echo")).expect("the guest is built"),
        );
        let reference = format!("{}/team/echo:0.1.0", registry.name());
        let (port, name) = (server.port().to_string(), registry.name());
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name),
            ("OCI_REGISTRY", &*name),
            ("OCI_REGISTRY_USER", USER),
            ("OCI_REGISTRY_PASSWORD", PASSWORD),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        let ack = client.scale_actor(&id, &reference, Some(2), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs", || board.status().actors.len() == 1);
        let actor = board.status().actors[0].clone();
        assert_eq!((actor.image_ref.as_str(), actor.max_concurrent), (&*reference, 2));
        assert!(!board.output().contains(PASSWORD), "{}", board.output());

        server.kill();
        registry.stop();
        board.kill();
        let mut board = sandbox.run_again(&settings);
        board.wait_for("actor echo started");
        eventually("the actor runs again", || board.status().actors.len() == 1);
        assert_eq!(board.status().actors[0].image_ref, reference);

        // Looked after while it runs, and while it does not: what should run stays.
        let artifact = |arguments: &[&str]| {
            let arguments: Vec<&str> = ["artifact"].iter().chain(arguments).copied().collect();
            let output = sandbox.command(&arguments).output().expect("the program starts");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let kept = || fs::read_dir(sandbox.path("state/blobs")).expect("it is there").count();
        let looked_after = || {
            let (code, text, _) = artifact(&["show", &reference]);
            assert!(code == Some(0) && text.contains("by the manifest sha256:") && text.contains("needed"), "{text}");
            let (code, text, _) = artifact(&["gc", "--all"]);
            assert!(code == Some(0) && text.starts_with("removed 0") && text.contains("kept 1"), "{text}");
            assert_eq!(artifact(&["verify"]).0, Some(0));
            assert_eq!(kept(), 1);
        };
        looked_after();
        let (code, text, _) = artifact(&["pin", &reference]);
        assert!(code == Some(0) && text.ends_with("is pinned\n"), "{text}");
        board.kill();
        looked_after();
        assert_eq!(artifact(&["pin", "--remove", &reference]).0, Some(0));
        assert_eq!(artifact(&["pin", "nobody.example/x:1"]).0, Some(4));

        // Damaged, and nobody there to ask: said so, and mended once somebody is.
        let blob = fs::read_dir(sandbox.path("state/blobs"))
            .expect("it is there")
            .next()
            .expect("one")
            .expect("readable")
            .path();
        let mut bytes = fs::read(&blob).expect("readable");
        bytes[1000] ^= 1;
        fs::write(&blob, bytes).expect("writable");
        let (code, _, complaint) = artifact(&["verify"]);
        assert!(code == Some(11) && complaint.contains("1 of 1 artifacts were damaged"), "{complaint}");
        registry.resume();
        let board = sandbox.run_again(&settings);
        eventually("the actor runs from a fresh copy", || {
            sandbox.path("latticed/admin.sock").exists() && actors_running(&board) == 1
        });
        assert_eq!(artifact(&["verify"]).0, Some(0));
    });
}

#[test]
fn a_start_by_a_manifest_with_a_tag_waits_for_no_network_and_only_a_reload_asks_again() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let mut registry = Registry::open();
    let echo = |revision: i32| {
        let wasm = fs::read(guests::module_path("echo")).expect("the guest is built");
        guests::sign_revision("echo", &[HTTP_SERVER], &wasm, revision).expect("it can be signed")
    };
    registry.push("echo", "1", MODULE, &echo(1));
    let (name, http) = (registry.name(), free_address());
    let settings = [("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name)];
    let mut manifest = Manifest::new("tagged");
    manifest.actor_from("echo", &format!("{name}/echo:1"), 1).http(http);
    let manifest = sandbox.write("tagged.yaml", manifest.text());
    let revision = |board: &Host| board.status().actors.first().map(|actor| actor.revision);
    let board = sandbox.run(&manifest, &settings);
    wait_for_200(http, PATIENCE).unwrap_or_else(|error| panic!("{error}: {}", board.output()));
    registry.push("echo", "1", MODULE, &echo(2));
    board.kill();

    registry.stop();
    let dark = Dark::at(registry.address());
    let start = Instant::now();
    let board = sandbox.run(&manifest, &settings);
    wait_for_200(http, PATIENCE).unwrap_or_else(|error| panic!("{error}: {}", board.output()));
    println!("an actor from a tag answers {:?} after the start, with a network that drops packets", start.elapsed());
    // A connection that nobody answers is waited for four times as long.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}: {}", start.elapsed(), board.output());
    assert_eq!(revision(&board), Some(1));

    drop(dark);
    registry.resume();
    board.signal(Signal::HUP);
    eventually("a reload looks the tag up", || revision(&board) == Some(2));
    board.kill();
    registry.stop();
    let _dark = Dark::at(registry.address());
    let board = sandbox.run(&manifest, &settings);
    wait_for_200(http, PATIENCE).unwrap_or_else(|error| panic!("{error}: {}", board.output()));
    assert_eq!(revision(&board), Some(2));
}

/// Actors that run, as soon as the host can be asked.
fn actors_running(board: &Host) -> usize {
    task::block_on(board.client().status()).map_or(0, |status| status.actors.len())
}

/// The figures of `tests/bench/README.md`: extra bytes on the line, memory, bytes on the medium (those in
/// `store::incoming`).
#[test]
fn a_large_actor_arrives_over_a_slow_link_that_is_cut_again_and_again() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let registry = Registry::open();
        let module = large_echo(2_000_000);
        let manifest = registry.push("echo", "1", MODULE, &module);
        let mischief = Mischief::before(registry.address());
        let (port, name) = (server.port().to_string(), mischief.address().to_string());
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        // One question before the one that is measured: the program's own pages come into memory with the first.
        let ack = client.scale_actor(&id, &format!("{name}/none:1"), Some(1), None).await.expect("an answer");
        assert!(!ack.accepted && ack.error.contains("its source does not have it"), "{}", ack.error);
        let (before, written) = (memory(board.pid()).expect("it runs"), bytes_written(board.pid()).expect("it runs"));
        mischief.forget();
        mischief.slow(64 << 10, Duration::from_secs(5));
        let reference = format!("{name}/echo@sha256:{manifest}");
        // Answered before the actor is here: a client waits two seconds at most.
        let ack = client.scale_actor(&id, &reference, Some(1), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        // Growth from the lowest point before: what is given back on the way hides nothing.
        let (mut least, mut growth) = (before, (0, 0));
        let mut seen = None;
        eventually("the large actor runs", || {
            let status = board.status();
            if let Some(transfer) = status.downloads.first() {
                let now = memory(board.pid()).expect("it runs");
                (least.rss, least.anonymous) = (least.rss.min(now.rss), least.anonymous.min(now.anonymous));
                growth = (growth.0.max(now.rss - least.rss), growth.1.max(now.anonymous - least.anonymous));
                seen = Some(transfer.clone());
            }
            status.actors.len() == 1
        });
        let seen = seen.expect("the download was seen on its way");
        assert!(seen.total == Some(module.len() as u64) && seen.attempt > 2, "{seen:?}");
        let extra = mischief.sent() - module.len() as u64;
        let written = bytes_written(board.pid()).expect("it runs") - written;
        println!(
            "{} bytes in {} attempts: {extra} extra on the line ({:.2} %), {written} written ({:.3} ×), RSS +{} KiB, \
             anonymous +{} KiB",
            module.len(),
            seen.attempt,
            100.0 * extra as f64 / module.len() as f64,
            written as f64 / module.len() as f64,
            growth.0 >> 10,
            growth.1 >> 10,
        );
        assert!(extra as f64 <= 0.03 * module.len() as f64, "{extra} bytes too many");
        // The program's own pages, which come in from its file and can go again, are not the download's.
        assert!(growth.1 <= 512 << 10, "{growth:?} above {least:?}");
        assert!(written as f64 <= 1.1 * module.len() as f64 + 32768.0 + OTHER_WRITES, "{written}");
    });
}

/// What a host writes beside an artifact when it starts an actor: desired state, claims in its copy of the lattice's
/// bucket, an accepted command; a page each.
const OTHER_WRITES: f64 = 16.0 * 4096.0;

#[test]
fn a_login_is_never_sent_on_to_where_a_redirect_leads() {
    let registry = Registry::open();
    let module = content(3000);
    registry.push("echo", "1", MODULE, &module);
    let (first, second) = (Mischief::before(registry.address()), Mischief::before(registry.address()));
    let name = first.address().to_string();
    let asks = Deed::Answer(401, vec!["WWW-Authenticate: Basic realm=\"test\"".to_owned()], Vec::new());
    first.plan("/manifests/", [asks.clone()]);
    first.plan("/blobs/", [asks]);
    let place = format!("Location: http://{}/v2/echo/blobs/sha256:{}", second.address(), Digest::of(&module));
    first.plan("/blobs/", [Deed::Answer(307, vec![place], Vec::new())]);
    let board = Board::without_tls(&name);
    board.artifacts.credentials().configure([(name.clone(), RegistryLogin::basic(USER, PASSWORD))]);
    assert_eq!(board.fetch(&format!("{name}/echo:1")).expect("it is there").bytes, module);
    let layer = first.requests().into_iter().rfind(|head| head.contains("/blobs/")).expect("it was asked");
    assert!(layer.contains("authorization: basic "), "{layer}");
    let elsewhere = second.requests();
    assert!(elsewhere.len() == 1 && !elsewhere[0].contains("authorization"), "{elsewhere:?}");
}

#[test]
fn a_proxy_of_the_environment_is_used_except_where_it_says_not() {
    let module = fs::read(guests::module_path("echo")).expect("the guest is built");
    let registry = Registry::open();
    registry.push("echo", "1", MODULE, &module);
    let door = Mischief::before(registry.address());
    // A proxy that leads everybody to the door, whatever name was asked for.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let proxy = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (asked, told) = std::sync::mpsc::channel();
    let (end, to) = (door.address(), asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            let mut head = String::new();
            let mut reader = std::io::BufReader::new(client.try_clone().expect("a second handle"));
            while !head.ends_with("\r\n\r\n") {
                if std::io::BufRead::read_line(&mut reader, &mut head).expect("a client speaks HTTP") == 0 {
                    break;
                }
            }
            if to.send(head).is_err() {
                return;
            }
            std::io::Write::write_all(&mut client, b"HTTP/1.1 200 OK\r\n\r\n").expect("the client waits");
            join(client, std::net::TcpStream::connect(end).expect("the door is open"));
        }
    });
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let publish = |reference: &str, variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&["artifact", "publish", "echo", reference]);
        let output = command.envs(variables.iter().copied()).output().expect("the program starts");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A name that only the proxy knows.
    let variables = [
        ("HTTP_PROXY", &*proxy),
        ("WASMCLOUD_OCI_ALLOWED_INSECURE", "registry.invalid:5000"),
        ("WASMCLOUD_ARTIFACT_ATTEMPTS", "1"),
    ];
    let (done, complaint) = publish("registry.invalid:5000/echo:1", &variables);
    assert!(done, "{complaint}");
    assert!(told.recv().expect("the proxy was asked").starts_with("CONNECT registry.invalid:5000 HTTP/1.1"));
    let without = [&variables[..], &[("NO_PROXY", "registry.invalid")]].concat();
    let (done, complaint) = publish("registry.invalid:5000/echo:1@sha256:00", &without);
    assert!(!done && !complaint.is_empty());
    let (done, complaint) = publish("registry.invalid:5000/other:1", &without);
    assert!(!done && complaint.contains("registry.invalid"), "{complaint}");
    let broken = [&variables[1..], &[("HTTP_PROXY", "http://")]].concat();
    let (done, complaint) = publish("registry.invalid:5000/other:1", &broken);
    assert!(!done && complaint.contains("HTTP_PROXY"), "{complaint}");
}

/// Passes on what comes from either end until one ends.
fn join(one: std::net::TcpStream, other: std::net::TcpStream) {
    let handles = (one.try_clone().expect("a second handle"), other.try_clone().expect("a second handle"));
    for (mut from, mut into) in [(one, handles.1), (other, handles.0)] {
        std::thread::spawn(move || {
            // Either end may go at any time.
            let _ = std::io::copy(&mut from, &mut into);
            let _ = into.shutdown(std::net::Shutdown::Both);
        });
    }
}
