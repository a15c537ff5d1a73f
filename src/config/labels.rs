//! The labels of a host: `HOST_*` variables and what the host knows of itself (`protocol/config.md §4`).

use std::{collections::BTreeMap, env::consts};

/// Prefix of the variables that become labels.
pub const PREFIX: &str = "HOST_";
/// Most labels kept beside the built-in ones; each heartbeat carries all of them. Further ones are left out with a
/// warning.
const MAX_LABELS: usize = 64;
/// Longest value kept, bytes. A longer one is left out with a warning.
const MAX_LABEL_BYTES: usize = 256;

/// Labels from `variables` (names with their prefix) and `given` ones (`--label`, which win); built-in ones win over
/// all. Also what was left out.
pub fn labels<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    given: &[(String, String)],
) -> (BTreeMap<String, String>, Vec<String>) {
    let mut labels = BTreeMap::new();
    let mut warnings = Vec::new();
    let variables = variables.into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    for (name, value) in variables.chain(given.iter().cloned()) {
        if name.len() + value.len() > MAX_LABEL_BYTES {
            warnings.push(format!("the label {} is left out: it is longer than {MAX_LABEL_BYTES} bytes", cut(&name)));
        } else if labels.len() == MAX_LABELS && !labels.contains_key(&name) {
            warnings.push(format!("the label {name} is left out: there are more than {MAX_LABELS}"));
        } else {
            labels.insert(name, value);
        }
    }
    for (name, value) in [("arch", consts::ARCH), ("os", consts::OS), ("osfamily", consts::FAMILY)] {
        labels.insert(format!("hostcore.{name}"), value.to_owned());
    }
    (labels, warnings)
}

fn cut(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_labels_and_built_in_ones_stay() {
        let given = [("zone".to_owned(), "b".to_owned())];
        let variables =
            [("HOST_REGION", "eu"), ("HOST_ZONE", "a"), ("HOST_HOSTCORE.OS", "plan9"), ("HOST_", "x"), ("PATH", "y")];
        let (labels, warnings) = super::labels(variables, &given);
        let expected = [
            ("hostcore.arch", consts::ARCH),
            ("hostcore.os", "linux"),
            ("hostcore.osfamily", "unix"),
            ("region", "eu"),
            ("zone", "b"),
        ];
        assert_eq!(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
        assert!(warnings.is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let long = "x".repeat(1000);
        let names: Vec<String> = (0..100).map(|index| format!("HOST_{index}")).collect();
        let variables = names.iter().map(|name| (name.as_str(), "v")).chain([("HOST_LONG", long.as_str())]);
        let (labels, warnings) = labels(variables, &[]);
        assert_eq!((labels.len(), warnings.len()), (MAX_LABELS + 3, 100 - MAX_LABELS + 1));
    }
}
