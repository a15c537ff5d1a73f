//! Power is cut during each single step the whole host makes on its disk: while it starts for the first time, takes an
//! application, links, counts and stops. Whatever was acknowledged by then is there after the next start, which is
//! never refused.

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use latticed::{
    actor::{self, Engine},
    error::{Error, Result},
    host::{
        Application, Control, Host,
        application::{ActorComponent, LinkComponent, ProviderComponent},
    },
    store::FaultDisk,
    task,
    wire::{
        codec,
        interface::{HttpRequest, HttpResponse, KEY_VALUE},
    },
};
use support::{guests, in_process};

/// What the outside world was told before the power went.
#[derive(Debug, Default, PartialEq)]
struct Acknowledged {
    host_id: Option<String>,
    applied: bool,
    count: i64,
    /// A count was asked for and no answer came.
    in_doubt: bool,
}

fn application() -> Application {
    let module = guests::module_path("counter");
    Application {
        name: "counter".into(),
        version: "v1".into(),
        actors: vec![ActorComponent {
            name: "counter".into(),
            reference: format!("file://{}", module.display()),
            max_concurrent: 1,
            issuers: Vec::new(),
            links: vec![LinkComponent { target: "keys".into(), values: BTreeMap::new() }],
        }],
        providers: vec![ProviderComponent {
            name: "keys".into(),
            reference: "builtin:keyvalue".into(),
            contract_id: KEY_VALUE.into(),
            link_name: "default".into(),
            configuration: None,
            issuers: Vec::new(),
        }],
    }
}

async fn start(disk: &FaultDisk, engine: &Engine) -> Result<Arc<Host>> {
    in_process::start(Arc::new(disk.clone()), engine).await
}

/// Counts once and answers the new count.
async fn count(host: &Host) -> Result<i64> {
    let request = HttpRequest { method: "GET".into(), path: "/".into(), ..HttpRequest::default() };
    let actor = host.status().actors.first().map(|actor| actor.public_key.clone()).unwrap_or_default();
    let payload = codec::encode(&request)?;
    let answer = host.call(actor, "HttpServer.HandleRequest".into(), payload, Duration::from_secs(20)).await?;
    let answer: HttpResponse = codec::decode("answer", &answer)?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["counter"]
        .as_i64()
        .ok_or_else(|| Error::guest(format!("{}: {}", answer.status_code, String::from_utf8_lossy(&answer.body))))
}

/// Lives one whole life on `disk` and tells what of it was acknowledged before the power went.
fn live(disk: &FaultDisk, engine: &Engine) -> Acknowledged {
    task::block_on(async {
        let mut told = Acknowledged::default();
        let Ok(host) = start(disk, engine).await else { return told };
        // An identity that could not be kept is said to be lost, so only one that outlived its start counts.
        told.host_id = (!disk.is_off()).then(|| host.id());
        in_process::beside(&host, async {
            if host.apply(application()).await.is_ok() {
                told.applied = true;
                host.settle().await;
                for _ in 0..3 {
                    match count(&host).await {
                        Ok(count) => told.count = count,
                        Err(_) => told.in_doubt = true,
                    }
                }
            }
        })
        .await;
        told
    })
}

#[test]
fn what_was_acknowledged_survives_a_cut_at_any_step() {
    let engine = Engine::new(actor::Settings::default()).expect("default limits are good");
    let whole = FaultDisk::new();
    let told = live(&whole, &engine);
    assert_eq!((told.applied, told.count, told.in_doubt), (true, 3, false), "the scenario itself works");
    let steps = whole.steps();
    assert!(steps > 10, "only {steps} steps");

    for step in 0..steps {
        let disk = FaultDisk::new();
        disk.cut_at(step);
        let told = live(&disk, &engine);
        assert!(disk.is_off(), "step {step} never came");
        for seed in 0..2 {
            let disk = disk.restart(seed * 1000 + step);
            let place = format!("cut at step {step} of {steps}, seed {seed}, acknowledged {told:?}");
            task::block_on(async {
                let host = start(&disk, &engine).await.unwrap_or_else(|error| panic!("{place}: refused: {error}"));
                if let Some(id) = &told.host_id {
                    assert_eq!(&host.id(), id, "{place}: another identity");
                }
                in_process::beside(&host, async {
                    assert_eq!(host.settle().await, Vec::<String>::new(), "{place}");
                    let status = host.status();
                    let there = (status.actors.len(), status.providers.len(), status.links.len());
                    assert!(there == (1, 1, 1) || (there == (0, 0, 0) && !told.applied), "{place}: found {there:?}");
                    if there.0 == 1 {
                        let next = count(&host).await.unwrap_or_else(|error| panic!("{place}: {error}"));
                        let least = told.count + 1;
                        assert!((least..=least + i64::from(told.in_doubt)).contains(&next), "{place}: counted {next}");
                    }
                })
                .await;
            });
        }
    }
}
