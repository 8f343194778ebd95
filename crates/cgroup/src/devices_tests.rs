use super::*;

/// `allow|deny kind major:minor access`, as people write rules.
pub(crate) fn rule(text: &str) -> DeviceRule {
    let words: Vec<&str> = text.split(' ').collect();
    let (major, minor) = words[2].split_once(':').unwrap();
    DeviceRule {
        allow: words[0] == "allow",
        kind: match words[1] {
            "a" => DeviceKind::All,
            "b" => DeviceKind::Block,
            _ => DeviceKind::Char,
        },
        major: major.parse().ok(),
        minor: minor.parse().ok(),
        access: DeviceAccess::parse(words[3]).unwrap(),
    }
}

fn policy(rules: &[&str]) -> Result<Policy> {
    let rules: Vec<DeviceRule> = rules.iter().map(|text| rule(text)).collect();
    Policy::of(&rules)
}

fn lines(rules: &[&str], list: &str) -> Vec<String> {
    let lines = policy(rules).unwrap().lines_from(&Policy::parse(list));
    let word = |allow| if allow { "allow" } else { "deny" };
    lines
        .iter()
        .map(|(allow, line)| format!("{} {line}", word(*allow)))
        .collect()
}

#[test]
fn rules_become_lines_for_what_the_group_has() {
    let everything = "a *:* rwm\n";
    let some = "c 1:3 rwm\nc 1:5 rw\n";
    // (rules, devices.list, lines)
    let rows: [(&[&str], &str, &[&str]); 8] = [
        (&["deny a *:* rwm"], everything, &["deny a"]),
        (
            &[
                "allow c 1:1 r",
                "deny a *:* rwm",
                "allow c 1:3 rw",
                "allow c 1:3 m",
                "allow a 7:* r",
            ],
            everything,
            &[
                "deny a",
                "allow c 1:3 rwm",
                "allow b 7:* r",
                "allow c 7:* r",
            ],
        ),
        // Additions before removals, and nothing for what stays.
        (
            &["deny a *:* rwm", "allow c 1:3 rw", "allow c 1:8 r"],
            some,
            &["allow c 1:8 r", "deny c 1:3 m", "deny c 1:5 rw"],
        ),
        (
            &["deny a *:* rwm", "allow c 1:5 rw", "allow c 1:3 rwm"],
            some,
            &[],
        ),
        (&["allow a *:* rwm"], some, &["allow a"]),
        (&["deny c 1:3 w"], everything, &["allow a", "deny c 1:3 w"]),
        (
            &["deny c 1:3 w", "allow c *:* rw"],
            everything,
            &["allow a"],
        ),
        (
            &["deny a *:* rwm", "allow c 1:3 rwm", "deny c 1:3 m"],
            everything,
            &["deny a", "allow c 1:3 rw"],
        ),
    ];
    for (rules, list, expected) in rows {
        assert_eq!(lines(rules, list), expected, "{rules:?} on {list}");
    }
}

#[test]
fn v1_has_no_holes() {
    for rules in [
        ["deny a *:* rwm", "allow c *:* m", "deny c 1:3 m"],
        ["allow a *:* rwm", "deny c 1:* rw", "allow c *:3 r"],
    ] {
        let text = policy(&rules).unwrap_err().to_string();
        assert!(text.contains("v1 cannot except it from"), "{text}");
    }
}

#[test]
fn access_letters() {
    for (letters, expected) in [
        ("rwm", Some("rwm")),
        ("mr", Some("rm")),
        ("", None),
        ("rx", None),
        ("ww", Some("w")),
    ] {
        let access = DeviceAccess::parse(letters).map(|access| access.to_string());
        assert_eq!(access.as_deref(), expected, "{letters}");
    }
}
