//! Text that came from a container, made fit for a terminal.

/// The text with every control character (and every letter that reorders others) as an escape:
/// a container's name or argument must not move the cursor or retitle the window of whoever
/// lists it.
#[must_use]
pub fn plain(text: &str) -> String {
    escaped(text, |letter| letter.escape_default().collect())
}

/// The same for a text of several lines, such as an error and its remedy.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// The text of a JSON document with those letters in JSON's form: it leaves the controls from
/// U+007F on as they are, and U+009B begins an escape sequence.
#[must_use]
pub fn plain_json(document: &str) -> String {
    let mut units = [0; 2];
    document
        .split('\n')
        .map(|line| {
            escaped(line, |letter| {
                let units = letter.encode_utf16(&mut units);
                units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
            })
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn escaped(text: &str, mut escape: impl FnMut(char) -> String) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_harmful(letter) {
            plain.push_str(&escape(letter));
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// Controls, and marks that change the order of the letters after them or have no width.
fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// What a program wrote, for a terminal that is not the program's: tabs, ends of lines and colours
/// work, every other control is shown. Colours end with the line, or they could hide what follows.
#[must_use]
pub fn shown(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut coloured = false;
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(letter) = rest.chars().next() {
            let length = colour(rest).unwrap_or(letter.len_utf8());
            let (piece, after) = rest.split_at(length);
            let harmless = matches!(piece, "\t" | "\n") || (piece == "\r" && is_line_end(after));
            if harmless || length > letter.len_utf8() {
                coloured |= letter == '\u{1b}';
                shown.extend_from_slice(piece.as_bytes());
            } else {
                shown.extend_from_slice(plain(piece).as_bytes());
            }
            rest = after;
        }
        for byte in chunk.invalid() {
            shown.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    if coloured {
        let line = if shown.ends_with(b"\n") {
            shown.len() - 1
        } else {
            shown.len()
        };
        shown.splice(line..line, *b"\x1b[0m");
    }
    shown
}

/// A terminal's line ends with both.
fn is_line_end(after: &str) -> bool {
    after.is_empty() || after.starts_with('\n')
}

/// The length of the colour sequence (SGR of ECMA-48) that the text begins with.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|letter: char| !matches!(letter, '0'..='9' | ';' | ':'))?;
    (parameters.as_bytes().get(end) == Some(&b'm')).then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_cannot_reach_the_terminal() {
        assert_eq!(
            plain("a\u{1b}[2J\r\n\u{7}\u{202e}b\u{9b}"),
            "a\\u{1b}[2J\\r\\n\\u{7}\\u{202e}b\\u{9b}"
        );
        assert_eq!(plain("grün é 雪"), "grün é 雪");
        assert_eq!(plain_lines("a\u{1b}\nb\r"), "a\\u{1b}\nb\\r");
    }

    #[test]
    fn json_stays_json() {
        let text = "\u{1b}\u{9b}\u{7f}\u{202e}\u{e0041}雪";
        let document = plain_json(&format!("{{\n \"a\": {text:?}}}").replace("\\u{1b}", "\\u001b"));
        assert!(
            !document
                .chars()
                .any(|letter| is_harmful(letter) && letter != '\n')
        );
        assert_eq!(
            plain_json("\"\u{e0041}\u{9b}\""),
            "\"\\udb40\\udc41\\u009b\""
        );
    }

    #[test]
    fn a_program_may_colour_its_lines_only() {
        for (bytes, text) in [
            (&b"plain\ttext\r\n"[..], "plain\ttext\r\n"),
            (b"\x1b[1;31mred\n", "\x1b[1;31mred\x1b[0m\n"),
            (b"\x1b[mx", "\x1b[mx\x1b[0m"),
            (b"\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            (b"50%\r51%", "50%\\r51%"),
            (b"\x1b[2J\x1b[1A\x1b[>4m", "\\u{1b}[2J\\u{1b}[1A\\u{1b}[>4m"),
            (b"\x9b2K\xff", "\\x9b2K\\xff"),
            ("\u{9b}2K\u{202e}".as_bytes(), "\\u{9b}2K\\u{202e}"),
            (b"\x1b[31", "\\u{1b}[31"),
        ] {
            assert_eq!(String::from_utf8(shown(bytes)).unwrap(), text);
        }
    }
}
