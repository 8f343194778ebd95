//! `floe update`

use anyhow::{Context, Result, bail};
use clap::Args;
use monitor::restart::Policy;
use monitor::wire::Request;
use serde_json::Value;

use crate::flags::LimitFlags;
use crate::output;
use crate::plan::resources::resources;
use crate::runtime::Runtime;
use crate::session::Session;
use crate::store::Store;
use crate::store::container::{Container, Word, replace_durably};

#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    limits: LimitFlags,
    /// When it ends: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<u8> {
    if flags.limits.cgroup_parent.is_some() {
        bail!("--cgroup-parent: a container's group cannot be moved");
    }
    let limits = Value::Object(resources(&flags.limits)?);
    let policy = flags.restart.as_deref().map(|text| {
        Policy::parse(text).with_context(|| {
            format!("--restart `{text}`: no, on-failure[:N], always, unless-stopped")
        })
    });
    let policy = policy.transpose()?;
    let nothing = limits.as_object().is_some_and(serde_json::Map::is_empty);
    if nothing && policy.is_none() {
        bail!("nothing to update");
    }
    let store = Store::open()?;
    super::each(&store, &flags.containers, |found| {
        let _lock = found.lock()?;
        let mut container = Container::load(&store, &found.record.id)?;
        let word = container.state_locked(&store)?.word;
        if !nothing {
            if matches!(word, Word::Running | Word::Paused) {
                Runtime::find(&store)?.update(&container.record.id, &limits)?;
            }
            save_limits(&container, &limits)?;
        }
        if let Some(policy) = policy {
            if container.record.remove && policy != Policy::No {
                bail!(
                    "container `{}` is removed when it ends (--rm)",
                    container.record.name
                );
            }
            container.record.restart = policy.to_string();
            container.save()?;
            if word.is_live() {
                let session = Session::connect(&container)?;
                session.request(&Request::Policy(policy.to_string().as_bytes()))?;
            }
        }
        crate::events::record(&store, &container, "update", &[]);
        output::line(&container.record.name)
    })
}

/// Writes the new limits into the bundle, for the next start.
fn save_limits(container: &Container, limits: &Value) -> Result<()> {
    let path = container.bundle().join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
    let mut spec: Value =
        serde_json::from_slice(&text).with_context(|| format!("read `{}`", path.display()))?;
    merge(&mut spec["linux"]["resources"], limits);
    replace_durably(&path, &serde_json::to_vec(&spec)?)
}

/// Lays one object over another, field by field.
fn merge(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => below.clone_from(above),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn new_limits_replace_only_what_they_name() {
        let mut below = json!({"memory": {"limit": 1, "swap": 2}, "devices": [1]});
        merge(
            &mut below,
            &json!({"memory": {"limit": 5}, "pids": {"limit": 9}}),
        );
        assert_eq!(
            below,
            json!({"memory": {"limit": 5, "swap": 2}, "devices": [1], "pids": {"limit": 9}})
        );
    }
}
