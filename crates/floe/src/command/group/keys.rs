//! `floe group keys`

use anyhow::Result;
use cgroup::vocabulary::{Unit, entries};
use clap::Args;
use serde_json::json;

use crate::output::{self, Format};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    if flags.format == Format::Json {
        let list = entries().iter().map(|entry| {
            json!({
                "key": entry.name,
                "value": entry.unit.expectation(),
                "default": entry.default,
                "about": entry.about,
            })
        });
        output::json(&list.collect::<Vec<_>>())?;
        return Ok(0);
    }
    let row = |(name, default, unit, about): (&str, &str, Unit, &str)| {
        vec![
            name.to_owned(),
            default.to_owned(),
            about.to_owned(),
            unit.expectation(),
        ]
    };
    let known = entries().iter();
    let mut rows: Vec<Vec<String>> = known
        .map(|entry| row((entry.name, entry.default, entry.unit, entry.about)))
        .collect();
    for (name, about) in [
        ("v1:FILE", "a file of a v1 controller, as it is"),
        ("v2:FILE", "a file of the v2 group, as it is"),
    ] {
        rows.push(row((name, "", Unit::Text, about)));
    }
    output::print(&text::table(
        &["KEY", "DEFAULT", "WHAT IT DOES", "VALUE"],
        &rows,
    ))?;
    Ok(0)
}
