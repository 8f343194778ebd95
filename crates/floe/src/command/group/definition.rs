//! Groups as files describe them: `/etc/floe/groups.d/*.toml`.
//!
//! ```toml
//! [group."web/api"]
//! memory.max = "512M"
//! cpu.weight = 200
//! delegate = "alice"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cgroup::Name;
use cgroup::vocabulary::Assignment;
use toml::{Table, Value};

use super::book::Record;

/// One group as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: Name,
    pub(super) assignments: Vec<Assignment>,
    /// A user by name or number.
    pub(super) delegate: Option<String>,
}

/// How a group differs from its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    Missing,
    /// It is there, but not because of a definition.
    Unclaimed,
    /// The value is another one, or (`from` is `None`) was never asked for.
    Value {
        assignment: Assignment,
        from: Option<String>,
    },
    /// The definition has it no longer.
    NoValue {
        key: String,
        from: String,
    },
    User {
        from: Option<u32>,
        to: Option<u32>,
    },
    /// No definition has the group any longer.
    Undefined,
}

/// Where the definitions are: the flag, the environment, or the usual place of the caller.
pub(super) fn directory(flag: Option<&Path>, rootless: bool) -> PathBuf {
    if let Some(flag) = flag {
        return flag.to_owned();
    }
    let variable = |name| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    if let Some(path) = variable("FLOE_GROUPS_DIR") {
        return path;
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    match home.filter(|_| rootless) {
        Some(home) => home.join("floe/groups.d"),
        None => "/etc/floe/groups.d".into(),
    }
}

/// Reads all definitions of a directory, in the order of its files' names.
pub(super) fn read(directory: &Path) -> Result<Vec<Definition>> {
    let list = || format!("list `{}`", directory.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut all: Vec<Definition> = Vec::new();
    let mut files: BTreeMap<Name, PathBuf> = BTreeMap::new();
    for path in paths {
        let reading = || format!("read `{}`", path.display());
        let text = std::fs::read_to_string(&path).with_context(reading)?;
        for definition in parse(&text).with_context(reading)? {
            if let Some(other) = files.insert(definition.name.clone(), path.clone()) {
                bail!(
                    "group `{}` is in `{}` and in `{}`",
                    definition.name,
                    other.display(),
                    path.display()
                );
            }
            all.push(definition);
        }
    }
    Ok(all)
}

/// Understands the text of one file.
fn parse(text: &str) -> Result<Vec<Definition>> {
    let mut table: Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).unwrap_or_default().lines().count().max(1);
            bail!("line {line}: {}", error.message().trim_end())
        }
    };
    let groups = table.remove("group");
    if let Some(other) = table.keys().next() {
        bail!("`{other}`: only [group.NAME] tables are known");
    }
    let groups = match groups {
        None => return Ok(Vec::new()),
        Some(Value::Table(groups)) => groups,
        Some(_) => bail!("`group`: not a table"),
    };
    let mut all = Vec::new();
    for (name, value) in groups {
        let Value::Table(values) = value else {
            bail!("group `{name}`: not a table");
        };
        all.push(definition(&name, values).with_context(|| format!("group `{name}`"))?);
    }
    Ok(all)
}

fn definition(name: &str, mut values: Table) -> Result<Definition> {
    let delegate = match values.remove("delegate") {
        None => None,
        Some(value) => Some(scalar("delegate", &value)?),
    };
    let mut texts = Vec::new();
    flatten("", &values, &mut texts)?;
    let assignments: Result<Vec<Assignment>> =
        texts.iter().map(|text| super::assignment(text)).collect();
    Ok(Definition {
        name: Name::parse(name)?,
        assignments: assignments?,
        delegate,
    })
}

/// `memory.max = …` is a table within a table to TOML.
fn flatten(prefix: &str, table: &Table, texts: &mut Vec<String>) -> Result<()> {
    for (key, value) in table {
        let key = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(inner) => flatten(&key, inner, texts)?,
            Value::Array(list) => {
                let words: Result<Vec<String>> =
                    list.iter().map(|value| scalar(&key, value)).collect();
                texts.push(format!("{key}={}", words?.join("; ")));
            }
            value => texts.push(format!("{key}={}", scalar(&key, value)?)),
        }
    }
    Ok(())
}

fn scalar(key: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(switch) => Ok(u8::from(*switch).to_string()),
        _ => bail!("`{key}`: neither a text nor a whole number nor true or false"),
    }
}

/// What has to change in a group. `present` tells the kernel's value of a key that is asked for,
/// `None` where the host has no such value.
pub(super) fn differences(
    definition: &Definition,
    user: Option<u32>,
    record: Option<&Record>,
    present: impl Fn(&Assignment) -> Option<String>,
) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut named = Vec::new();
    for assignment in &definition.assignments {
        let key = assignment.key.to_string();
        let wanted = assignment.text();
        let now = present(assignment);
        let asked = record.and_then(|record| record.values.get(&key));
        // As asked before, and as the kernel took it then: also where it rounds.
        let kept = asked
            .is_some_and(|asked| asked.requested == wanted && Some(&asked.set) == now.as_ref());
        let defined = asked.is_some_and(|asked| asked.defined);
        if !kept || !defined {
            all.push(Difference::Value {
                assignment: assignment.clone(),
                from: now,
            });
        }
        named.push(key);
    }
    let values = record.into_iter().flat_map(|record| &record.values);
    for (key, asked) in values.filter(|(key, asked)| asked.defined && !named.contains(key)) {
        all.push(Difference::NoValue {
            key: key.clone(),
            from: asked.requested.clone(),
        });
    }
    let from = record.and_then(|record| record.user);
    if from != user {
        all.push(Difference::User { from, to: user });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::group::book::Asked;

    fn texts(text: &str) -> Vec<String> {
        let one = |definition: &Definition| {
            let mut words = vec![definition.name.to_string()];
            words.extend(definition.assignments.iter().map(ToString::to_string));
            words.extend(definition.delegate.iter().map(|user| format!("for {user}")));
            words.join(" ")
        };
        parse(text).unwrap().iter().map(one).collect()
    }

    #[test]
    fn groups_are_tables_and_values_are_dotted_keys() {
        let text = r#"
            [group.web]
            memory.max = "1G"
            memory.swap.max = 0
            cpu.idle = true
            "cpu.max" = "150%"
            "cpu.max.burst" = "10ms"
            delegate = 1000
            [group."web/api"]
            io.max = ["8:0 rbps=1M", "8:16 wbps=2M"]
            "v2:cgroup.max.depth" = 3
        "#;
        assert_eq!(
            texts(text),
            [
                "web cpu.idle=1 cpu.max=150% cpu.max.burst=10ms memory.max=1G memory.swap.max=0 for 1000",
                "web/api io.max=8:0 rbps=1M; 8:16 wbps=2M v2:cgroup.max.depth=3",
            ]
        );
        assert!(texts("").is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, cause) in [
            ("[group.web]\nmemory.max = ", "line 2"),
            ("[groups.web]", "only [group.NAME] tables"),
            ("group = 1", "not a table"),
            ("[group]\nweb = 1", "group `web`: not a table"),
            ("[group.web]\nmemory.most = 1", "no such key"),
            ("[group.web]\nmemory.max = 1.5", "neither a text"),
            ("[group.web]\nmemory.max = \"1X\"", "a size such as 512M"),
            ("[group.\"../x\"]", "not a group's name"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let definition = &parse("[group.web]\nmemory.max = 1000000\npids.max = 5").unwrap()[0];
        let present = |assignment: &Assignment| match assignment.key.to_string().as_str() {
            "memory.max" => Some("976K".to_owned()),
            _ => Some("9".to_owned()),
        };
        let asked = |requested: &str, set: &str| Asked {
            requested: requested.to_owned(),
            set: set.to_owned(),
            defined: true,
        };
        let mut record = Record::default();
        for (key, requested, set) in [
            ("memory.max", "1000000", "976K"),
            ("pids.max", "5", "5"),
            ("cpu.weight", "7", "7"),
        ] {
            record.values.insert(key.to_owned(), asked(requested, set));
        }
        let found = differences(definition, Some(7), Some(&record), present);
        let [value, no_value, user] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(matches!(value, Difference::Value { from: Some(from), .. } if from == "9"));
        assert!(matches!(no_value, Difference::NoValue { key, .. } if key == "cpu.weight"));
        assert_eq!(
            *user,
            Difference::User {
                from: None,
                to: Some(7)
            }
        );
        // Rounded values stay as they are.
        record.values.remove("cpu.weight");
        record.values.insert("pids.max".to_owned(), asked("5", "9"));
        assert!(differences(definition, None, Some(&record), present).is_empty());
    }
}
