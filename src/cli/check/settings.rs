//! The settings in effect, for people and for scripts.

use serde::Serialize;

use crate::{
    cli::{
        Output,
        table::{Column, Table},
    },
    config::Config,
    error::Result,
};

#[derive(Serialize)]
struct Shown<'a> {
    settings: Vec<Row<'a>>,
    labels: &'a std::collections::BTreeMap<String, String>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    /// `null` where nothing is set; a mask where it is a secret.
    value: Option<String>,
    origin: String,
    /// The other name it was set under.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<&'a str>,
}

/// Shows `config`.
pub(super) fn check(config: &Config, output: &mut Output) -> Result<()> {
    let rows = || {
        config.values().iter().map(|found| Row {
            name: found.setting.name,
            value: Some(found.shown()).filter(|value| !value.is_empty()),
            origin: found.origin.to_string(),
            alias: found.alias,
        })
    };
    if output.json() {
        return output.document(&Shown {
            settings: rows().collect(),
            labels: &config.labels,
            warnings: &config.warnings,
        });
    }
    let mut table = Table::new(&[("SETTING", Column::Text), ("VALUE", Column::Text), ("FROM", Column::Text)]);
    for row in rows() {
        let origin = row.alias.map_or_else(|| row.origin.clone(), |alias| format!("{} {alias}", row.origin));
        table.row([row.name.to_owned(), row.value.unwrap_or_else(|| "-".into()), origin]);
    }
    output.text(&table.render(None))?;
    let labels: Vec<String> = config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    output.line(format_args!("\nlabels: {}", crate::cli::table::printable(&labels.join(", "))))
}
