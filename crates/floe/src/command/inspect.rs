//! `floe inspect`

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::store::Store;
use crate::store::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    let store = Store::open()?;
    let mut shown = Vec::new();
    let code = super::each(&store, &flags.containers, |container| {
        shown.push(describe(&store, container)?);
        Ok(())
    })?;
    match flags.format {
        Format::Json => output::json(&shown)?,
        Format::Table => {
            for value in &shown {
                let mut rows = Vec::new();
                flatten("", value, &mut rows);
                output::print(&crate::text::table(&["KEY", "VALUE"], &rows))?;
            }
        }
    }
    Ok(code)
}

fn describe(store: &Store, container: &Container) -> Result<Value> {
    let state = container.state(store)?;
    let bundle = container.bundle().join("config.json");
    let spec = std::fs::read(&bundle).with_context(|| format!("read `{}`", bundle.display()))?;
    let spec: Value =
        serde_json::from_slice(&spec).with_context(|| format!("read `{}`", bundle.display()))?;
    let mut value = serde_json::to_value(&container.record)?;
    value["state"] = json!({
        "status": state.word.name(),
        "pid": state.pid,
        "monitor": container.monitor().filter(|_| container.is_held()),
        "started": state.started,
        "restarts": state.restarts,
        "exitCode": state.exit.as_ref().map(|exit| exit.code),
        "finished": state.exit.as_ref().map(|exit| &exit.finished),
        "error": state.exit.as_ref().map(|exit| &exit.error),
    });
    value["paths"] = json!({
        "directory": container.dir,
        "bundle": container.bundle(),
        "log": container.dir.join("log"),
        "runtime": container.run_dir,
    });
    value["spec"] = spec;
    Ok(value)
}

/// Every leaf with its path.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                flatten(&below(name), field, rows);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&below(&index.to_string()), item, rows);
            }
        }
        Value::Null => {}
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        Value::Bool(_) | Value::Number(_) => rows.push(vec![path.to_owned(), value.to_string()]),
    }
}
