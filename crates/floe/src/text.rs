//! Text that came from a container, made fit for a terminal.

pub(crate) use monitor::text::plain;

/// A table with its columns aligned; the last is not padded.
#[must_use]
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(head.get(column).map(|head| head.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Bytes with a unit: `1.5GiB`.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = bytes;
    while rest >= 1024 * 10 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    if rest >= 1024 && unit + 1 < UNITS.len() {
        return format!(
            "{}.{}{}",
            rest / 1024,
            rest % 1024 * 10 / 1024,
            UNITS[unit + 1]
        );
    }
    format!("{rest}{}", UNITS[unit])
}

/// A time span in its largest unit: `3 minutes`.
#[must_use]
pub(crate) fn span(seconds: i64) -> String {
    let (count, unit) = match seconds.max(0) {
        n @ 0..60 => (n, "second"),
        n @ 60..3600 => (n / 60, "minute"),
        n @ 3600..86_400 => (n / 3600, "hour"),
        n => (n / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["ID", "B"], &rows), "ID    B\na     x\nlong\n");
    }

    #[test]
    fn sizes_and_spans_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            (5 << 30, "5.0GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(1, "1 second"), (59, "59 seconds"), (7200, "2 hours")] {
            assert_eq!(span(seconds), text);
        }
    }
}
