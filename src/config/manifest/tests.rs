//! What manifests mean, and where what is wrong with them is said to be.

use std::collections::BTreeMap;

use super::*;

const HEAD: &str = "apiVersion: core.oam.dev/v1beta1
kind: Application
metadata:
  name: app
  annotations: {version: v0.0.1, description: \"about\"}
spec:
  components:
";

const ECHO: &str = "    - name: echo
      type: actor
      properties:
        image: file://echo.wasm
      traits:
        - type: spreadscaler
          properties: {replicas: 4}
        - type: linkdef
          properties:
            target: http
            values:
              address: 127.0.0.1:8080
";

const HTTP: &str = "    - name: http
      type: capability
      properties:
        image: builtin:httpserver
        contract: wasmcloud:httpserver
";

fn parsed(components: &str) -> Result<Application> {
    let labels = BTreeMap::from([("zone".to_owned(), "shed".to_owned())]);
    parse("app.yaml", &format!("{HEAD}{components}"), Path::new("/apps"), &labels)
}

fn good(components: &str) -> Application {
    parsed(components).expect("a good manifest")
}

fn error(components: &str) -> String {
    parsed(components).expect_err("a bad manifest").text().to_owned()
}

#[test]
fn a_manifest_becomes_actors_capabilities_and_links() {
    let app = good(&format!("{ECHO}{HTTP}"));
    assert_eq!((app.name.as_str(), app.version.as_str(), app.description.as_str()), ("app", "v0.0.1", "about"));
    let [echo] = &app.actors[..] else { panic!("one actor") };
    assert_eq!((echo.reference.text(), echo.path.as_deref()), ("file://echo.wasm", Some(Path::new("/apps/echo.wasm"))));
    assert_eq!((echo.max_concurrent, echo.position), (Some(4), Position { line: 8, column: 13 }));
    assert_eq!(echo.links[0].target, "http");
    assert_eq!(echo.links[0].values, BTreeMap::from([("address".to_owned(), "127.0.0.1:8080".to_owned())]));
    let [http] = &app.capabilities[..] else { panic!("one capability") };
    assert_eq!((http.contract_id.as_str(), http.link_name.as_str()), ("wasmcloud:httpserver", "default"));
    assert_eq!(app.warnings, [""; 0]);
}

#[test]
fn configuration_is_text_or_becomes_json() {
    let with = |config: &str| good(&format!("{HTTP}        config: {config}\n")).capabilities.remove(0).configuration;
    assert_eq!(with("{port: 80, tls: {on: false}}").as_deref(), Some("{\"port\":80,\"tls\":{\"on\":false}}"));
    assert_eq!(with("'{\"port\":80}'").as_deref(), Some("{\"port\":80}"));
    assert_eq!(with("~"), None);
}

#[test]
fn a_json_manifest_is_read_too() {
    let text = r#"{
	"apiVersion": "core.oam.dev/v1beta1", "kind": "Application",
	"metadata": {"name": "j", "annotations": {"version": "v1"}},
	"spec": {"components": [{"name": "http", "type": "capability",
		"properties": {"image": "builtin:httpserver", "contract": "wasmcloud:httpserver", "link_name": "front"}}]}
}"#;
    let app = parse("a.json", text, Path::new("/"), &BTreeMap::new()).expect("a good manifest");
    assert_eq!(app.capabilities[0].link_name, "front");
}

#[test]
fn what_one_board_cannot_honour_is_a_warning() {
    let spread = ECHO.replace(
        "{replicas: 4}",
        "{replicas: 4, spread: [{name: a, requirements: {zone: barn}, weight: 80}, {name: b, requirements: {zone: shed, arch: arm}}]}",
    );
    let twice =
        "      traits:\n        - type: daemonscaler\n          properties: {replicas: 3, spread: [{name: all}]}\n";
    assert_eq!(
        good(&format!("{spread}{HTTP}{twice}")).warnings,
        [
            "app.yaml:14:23: of the spread over 2 groups of hosts this host takes the first that it belongs to, with all 4 replicas",
            "app.yaml:14:23: the actor \"echo\" does not run on this host: its spread asks for the label zone = \"barn\" (this host has \"shed\"), or the label arch = \"arm\" (this host has none)",
            "app.yaml:27:23: the capability \"http\" runs once on this board, not 3 times",
        ]
    );
}

/// One manifest serves a fleet: labels decide which boards run what.
#[test]
fn the_labels_of_a_spread_decide_where_an_actor_runs() {
    let runs = |spread: &str| {
        let text = ECHO.replace("{replicas: 4}", &format!("{{replicas: 4, spread: [{spread}]}}"));
        good(&format!("{text}{HTTP}")).actors[0].runs_here
    };
    assert!(runs("{name: all}"));
    assert!(runs("{name: here, requirements: {zone: shed}}"));
    assert!(!runs("{name: there, requirements: {zone: barn}}"));
    assert!(!runs("{name: there, requirements: {zone: shed, gpu: big}}"));
    assert!(runs("{name: there, requirements: {zone: barn}}, {name: here, requirements: {zone: shed}}"));
    let elsewhere = "      traits:\n        - type: daemonscaler\n          properties: {replicas: 1, spread: [{name: a, requirements: {zone: barn}}]}\n";
    let app = good(&format!("{ECHO}{HTTP}{elsewhere}"));
    assert!(app.capabilities[0].runs_here, "an actor here needs it");
    assert!(app.warnings.iter().any(|warning| warning.contains("\"echo\" needs it")), "{:?}", app.warnings);
    let other = ECHO.replace("{replicas: 4}", "{replicas: 4, spread: [{name: a, requirements: {zone: barn}}]}");
    let app = good(&format!("{other}{HTTP}{elsewhere}"));
    assert!(!app.capabilities[0].runs_here && !app.actors[0].runs_here);
}

#[test]
fn a_trait_of_somebody_elses_is_named_and_ignored() {
    let text = ECHO.replace(
        "        - type: spreadscaler",
        "        - type: nightly-backup\n          properties: {at: 3}\n        - type: spreadscaler",
    );
    let app = good(&format!("{text}{HTTP}"));
    assert!(app.warnings[0].contains("\"nightly-backup\" is not known") && app.warnings[0].ends_with("it is ignored"));
    assert_eq!(app.actors[0].max_concurrent, Some(4));
}

#[test]
fn what_wadm_would_refuse_or_ignore_is_a_warning() {
    let port = ECHO.replace("address: 127.0.0.1:8080", "port: 8080\n              readonly_mode: true");
    let odd = HTTP.replace("contract:", "linkname: x\n        contract:");
    assert_eq!(
        good(&format!("{port}{odd}")).warnings,
        [
            "app.yaml:19:21: the value port is read as the text \"8080\"; wadm wants it in quotes",
            "app.yaml:20:30: the value readonly_mode is read as the text \"true\"; wadm wants it in quotes",
            "app.yaml:25:9: properties of the capability has no member \"linkname\" (did you mean link_name?); it is ignored",
        ]
    );
    let unscaled = "    - {name: echo, type: actor, properties: {image: 'file://echo.wasm'}}\n";
    let app = good(unscaled);
    assert_eq!(app.actors[0].max_concurrent, None);
    assert!(app.warnings[0].contains("has no scaler"), "{:?}", app.warnings);
}

#[test]
fn errors_name_line_column_and_reason() {
    let cases = [
        (
            HTTP.replace("contract: wasmcloud:httpserver", "x: y"),
            "app.yaml:11:9: properties of the capability has no contract",
        ),
        (format!("{HTTP}{HTTP}"), "app.yaml:13:13: the name \"http\" is taken by the component on line 8"),
        (
            ECHO.replace("        image: file://echo.wasm\n", "        {}\n"),
            "app.yaml:11:9: properties of the actor has no image",
        ),
        (ECHO.to_owned(), "app.yaml:17:21: the target \"http\" is no component of this manifest"),
        (
            format!("{}{HTTP}", ECHO.replace("target: http", "target: htpp")),
            "app.yaml:17:21: the target \"htpp\" is no component of this manifest (did you mean http?)",
        ),
        (
            ECHO.replace("target: http", "target: echo"),
            "app.yaml:17:21: the target \"echo\" is an actor; actors call each other without a link",
        ),
        (
            HTTP.replace("type: capability", "type: provider"),
            "app.yaml:9:13: type must be actor or capability, this is \"provider\"",
        ),
        (
            ECHO.replace("type: spreadscaler", "type: spreadscalar"),
            "app.yaml:13:17: the trait \"spreadscalar\" is not known (did you mean spreadscaler?); known are spreadscaler, daemonscaler, linkdef",
        ),
        (
            ECHO.replace("replicas: 4", "replicas: -1"),
            "app.yaml:14:34: replicas must be a whole number from 0 to 65535",
        ),
        (
            ECHO.replace("type: linkdef", "type: spreadscaler")
                .replace("            target: http\n", "            replicas: 2\n"),
            "app.yaml:15:11: the actor \"echo\" has a second scaler; one says it all",
        ),
        (
            format!("{HTTP}      traits:\n        - type: linkdef\n          properties: {{target: x}}\n"),
            "app.yaml:15:23: a linkdef is a trait of the actor; its target is the capability",
        ),
        (
            format!("{HTTP}{}", HTTP.replace("name: http", "name: other")),
            "app.yaml:13:13: \"other\" is builtin:httpserver with link name \"default\", as \"http\" on line 8 is; give it another link_name",
        ),
        (HTTP.replace("name: http", "name: ''"), "app.yaml:8:13: name of the component is empty"),
        (HTTP.replace("name: http", "name: [x]"), "app.yaml:8:13: name of the component must be text, this is a list"),
        ("    []\n".to_owned(), "app.yaml:8:5: components is empty: there is nothing to run"),
        ("    - text\n".to_owned(), "app.yaml:8:7: the component must be a map, this is text"),
    ];
    for (components, expected) in cases {
        assert_eq!(error(&components), expected, "{components}");
    }
}

#[test]
fn two_links_of_one_actor_contract_and_name_are_refused() {
    let second = "        - type: linkdef\n          properties: {target: other}\n";
    let other = HTTP.replace("name: http", "name: other").replace("builtin:httpserver", "builtin:other");
    assert_eq!(
        error(&format!("{ECHO}{second}{HTTP}{other}")),
        "app.yaml:21:32: the actor \"echo\" is linked to wasmcloud:httpserver as \"default\" already on line 17; give one of the capabilities another link_name"
    );
}

#[test]
fn references_elsewhere_get_a_clear_error() {
    for (image, words) in [
        ("bindle://example.com/echo/1.0", "is a bindle, which this version cannot fetch"),
        ("builtin:httpserver", "is a provider of this program and not an actor"),
        ("https://example.org/echo.wasm", "lacks its digest"),
        ("mirror://echo@sha256:00", "is no SHA-256 digest"),
    ] {
        let text = error(&ECHO.replace("file://echo.wasm", image));
        assert!(text.starts_with("app.yaml:11:16: ") && text.contains(words) && text.contains(image), "{text}");
    }
    let text = error(&HTTP.replace("builtin:httpserver", "bindle://example.com/kv/1.0"));
    assert!(text.starts_with("app.yaml:11:16: ") && text.contains("is a bindle"), "{text}");
}

#[test]
fn a_capability_may_be_an_archive_from_anywhere() {
    for (image, reference) in [
        ("file://kv.par.gz", "file:///apps/kv.par.gz"),
        ("registry.example.org/kv:0.1", "registry.example.org/kv:0.1"),
        ("builtin:keyvalue", "builtin:keyvalue"),
    ] {
        let app = good(&HTTP.replace("builtin:httpserver", image));
        assert_eq!(app.capabilities[0].reference.text(), reference);
    }
}

#[test]
fn other_files_are_told_apart() {
    let parse = |text: &str| {
        let error = super::parse("x.yaml", text, Path::new("/"), &BTreeMap::new()).expect_err("no manifest");
        error.text().to_owned()
    };
    assert_eq!(parse("a: 1"), "x.yaml:1:1: the manifest has no apiVersion");
    assert!(
        parse("apiVersion: apps/v1\nkind: Deployment")
            .starts_with("x.yaml:1:13: apiVersion must be core.oam.dev/v1beta1")
    );
    assert!(parse("a: [1,\n").starts_with("x.yaml:1:4: not valid YAML: unclosed bracket"), "{}", parse("a: [1,\n"));
    assert!(parse("- x").starts_with("x.yaml:1:1: the manifest must be a map"));
}

#[test]
fn the_quickstart_is_a_good_manifest() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quickstart/counter.yaml"));
    let app = read(path, &BTreeMap::new()).expect("the manifest of the README");
    assert_eq!(app.warnings, [""; 0]);
    assert!(app.actors[0].path.as_ref().is_some_and(|path| path.is_file()), "{:?}", app.actors[0].path);
    assert_eq!(app.actors[0].links.len(), 2);
}

#[test]
fn a_file_that_is_too_long_or_no_text_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("big.yaml");
    std::fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).expect("a file");
    assert!(read(&path, &BTreeMap::new()).is_err_and(|error| error.kind() == crate::error::Kind::Limit));
    std::fs::write(&path, [0xff, 0xfe]).expect("a file");
    assert!(read(&path, &BTreeMap::new()).is_err_and(|error| error.text().ends_with("a manifest is UTF-8 text")));
}
