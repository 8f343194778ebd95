//! What happened to containers: a file of JSON lines that every command and monitor appends to.

use std::io::{self, Write};
use std::path::Path;

use crate::clock::Moment;

/// The file is begun anew when it has this size; the old one is kept as `events.1`.
const LIMIT: u64 = 4 * 1024 * 1024;

/// Appends one event. A line is one write to a file opened for appending, so that lines of
/// several processes do not mix.
///
/// # Errors
/// Those of opening and writing the file.
pub fn append(path: &Path, id: &str, action: &str, details: &[(&str, &str)]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    if file.metadata()?.len() > LIMIT {
        std::fs::rename(path, path.with_extension("1"))?;
        file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
    }
    file.write_all(line(&Moment::now().to_string(), id, action, details).as_bytes())
}

fn line(time: &str, id: &str, action: &str, details: &[(&str, &str)]) -> String {
    let mut line = String::from("{");
    let fixed = [("time", time), ("id", id), ("action", action)];
    for (index, (key, value)) in fixed.iter().chain(details).enumerate() {
        if index > 0 {
            line.push(',');
        }
        quote(&mut line, key);
        line.push(':');
        quote(&mut line, value);
    }
    line.push_str("}\n");
    line
}

pub(crate) fn quote(text: &mut String, value: &str) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_stay_within_their_quotes() {
        assert_eq!(
            line("t", "i", "exit", &[("name", "a\"b\\\n")]),
            "{\"time\":\"t\",\"id\":\"i\",\"action\":\"exit\",\"name\":\"a\\\"b\\\\\\u000a\"}\n"
        );
    }
}
