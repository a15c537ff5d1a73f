//! Every scenario of `protocol/vectors/abi_actor.json`, with the signed module it holds.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;

use super::*;

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// What the host answers in a scenario: `success HEX`, `failure 'TEXT'`, or for the built-ins what their contract says.
fn answers(scenario: &Value) -> Result<Vec<u8>, String> {
    let text = scenario["host_answers"].as_str().unwrap_or("n/a");
    if let Some(body) = text.strip_prefix("success ") {
        return Ok(HEXLOWER.decode(body.as_bytes()).unwrap());
    }
    if let Some(text) = text.strip_prefix("failure ") {
        return Err(text.trim_matches('\'').to_string());
    }
    Ok(match scenario["name"].as_str().unwrap() {
        "builtin numbergen" => hex(&scenario["expected"]["success_hex"]),
        _ => Vec::new(),
    })
}

#[test]
fn every_scenario_of_the_abi_vectors() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/abi_actor.json"));
    let vectors: Value = serde_json::from_str(text).unwrap();
    let wasm = BASE64.decode(vectors["signed_wasm_base64"].as_str().unwrap().as_bytes()).unwrap();
    let scenarios = vectors["scenarios"].as_array().unwrap();
    assert!(scenarios.len() >= 14, "the vectors lost scenarios");
    let engine = engine(|_| ());
    for scenario in scenarios {
        let name = scenario["name"].as_str().unwrap();
        let expected = &scenario["expected"];
        let table = Table::fixed(answers(scenario));
        let outcome = task::block_on(async {
            let actor = load_with(&engine, wasm.clone(), table.clone()).await.unwrap();
            let (operation, payload) = (scenario["operation"].as_str().unwrap(), hex(&scenario["payload_hex"]));
            // Twice: the second must not see what the first left behind.
            let first = actor.invoke(operation, payload.clone(), context()).await;
            table.calls.lock().unwrap().clear();
            table.console.lock().unwrap().clear();
            let second = actor.invoke(operation, payload, context()).await;
            assert_eq!(first, second, "{name}");
            second
        });
        if let Some(body) = expected.get("success_hex") {
            assert_eq!(outcome, Ok(hex(body)), "{name}");
        } else if let Some(text) = expected.get("failure") {
            assert_eq!(outcome.unwrap_err().text(), text.as_str().unwrap(), "{name}");
        } else {
            assert_eq!(expected["trap"], true, "{name}");
            assert_eq!(outcome.unwrap_err().text(), "wasm `unreachable` instruction executed", "{name}");
        }
        if let Some(calls) = expected.get("host_calls") {
            let calls: Vec<_> = calls.as_array().unwrap().iter().collect();
            let seen = table.calls.lock().unwrap();
            assert_eq!(seen.len(), calls.len(), "{name}");
            for (seen, call) in seen.iter().zip(calls) {
                assert_eq!(seen.binding, call["binding"].as_str().unwrap(), "{name}");
                assert_eq!(seen.namespace, call["namespace"].as_str().unwrap(), "{name}");
                assert_eq!(seen.operation, call["operation"].as_str().unwrap(), "{name}");
                assert_eq!(seen.payload, hex(&call["payload_hex"]), "{name}");
            }
        }
        if let Some(console) = expected.get("console") {
            assert_eq!(*table.console.lock().unwrap(), serde_json::from_value::<Vec<String>>(console.clone()).unwrap());
        }
    }
}
