//! Actors that come from real registries, over links and through servers that do what links and servers do.

mod support;

use std::{fs, path::Path, sync::Arc, time::Duration};

use latticed::{
    artifact::{Artifacts, Download, Fetched, Images, Limit, Reference, Remote, Settings},
    error::{Error, Kind},
    store::{self, Digest, RealDisk, Store},
    task,
};
use support::{
    mischief::{Deed, Mischief},
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
        task::block_on(self.artifacts.fetch(&reference, "an actor", LIMIT))
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
    let store = loop {
        // The thread of the last commit may hold the folder for a moment.
        match Store::open(store::Settings::default(), Arc::new(RealDisk::new(folder))) {
            Err(error) if error.kind() == Kind::Conflict => std::thread::yield_now(),
            other => break other.expect("the folder can be used").0,
        }
    };
    let artifacts = Artifacts::new(store, settings.clone());
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
    board.artifacts.credentials().configure(&registry.name(), USER, "wrong-7");
    let error = board.refusal(&reference);
    assert!(error.text().contains(&format!("with user {USER:?}")), "{error}");
    assert!(!error.text().contains("wrong-7"), "{error}");
    board.artifacts.credentials().configure(&registry.name(), USER, PASSWORD);
    assert_eq!(board.fetch(&reference).expect("the login is right").bytes, module);
}

/// A registry that sends for a token, and a token service, made of a real one behind planned answers.
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
    mischief.plan("GET /v2/ ", [challenge(401)]);
    mischief.plan("/token", [token(), token()]);
    let board = Board::without_tls(&name);
    board.artifacts.credentials().configure(&name, USER, PASSWORD);
    assert_eq!(board.fetch(&format!("{name}/team/echo:1")).expect("the token opens it").bytes, module);
    let requests = mischief.requests();
    let for_token: Vec<_> = requests.iter().filter(|head| head.contains("/token?")).collect();
    assert!(
        for_token.iter().all(
            |head| head.contains("scope=repository%3ateam%2fecho%3apull") && head.contains("authorization: basic ")
        ),
        "{for_token:?}"
    );
    let layer = requests.iter().find(|head| head.contains("/blobs/")).expect("the layer was asked for");
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
    let start = std::time::Instant::now();
    let references = [format!("{name}/echo:1"), format!("{name}/other/echo:2")]
        .map(|text| Reference::parse(&text).expect("an image"));
    task::block_on(async {
        let asked = (0..8).map(|number| board.artifacts.fetch(&references[number % 2], "an actor", LIMIT));
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
