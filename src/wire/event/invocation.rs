//! Events about single invocations, on a subject of their own (`protocol/invocation.md §8`).

use serde::Serialize;

use super::Data;
use crate::wire::Entity;

/// Who called whom and what, without the body.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Passed<'a> {
    /// Who called.
    pub source: &'a Entity,
    /// Who was called.
    pub dest: &'a Entity,
    /// `Trait.Method`.
    pub operation: &'a str,
    /// Length of the request's body.
    pub bytes: u64,
}

/// The invocation was answered.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct InvocationSucceeded<'a>(pub Passed<'a>);

impl Data for InvocationSucceeded<'_> {
    const NAME: &'static str = "invocation_succeeded";
}

/// The invocation ended in an error.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct InvocationFailed<'a>(pub Passed<'a>);

impl Data for InvocationFailed<'_> {
    const NAME: &'static str = "invocation_failed";
}

#[cfg(test)]
mod tests {
    use super::{super::tests::written, *};

    #[test]
    fn both_outcomes_tell_the_same() {
        let (source, dest) = (Entity::actor("M1"), Entity::provider("V1", "wasmcloud:keyvalue", "default"));
        let passed = Passed { source: &source, dest: &dest, operation: "KeyValue.Get", bytes: 6 };
        assert_eq!(
            written(&InvocationSucceeded(passed)),
            serde_json::json!({
                "source": {"public_key": "M1", "link_name": "", "contract_id": ""},
                "dest": {"public_key": "V1", "link_name": "default", "contract_id": "wasmcloud:keyvalue"},
                "operation": "KeyValue.Get",
                "bytes": 6
            })
        );
        assert_eq!(written(&InvocationFailed(passed)), written(&InvocationSucceeded(passed)));
    }
}
