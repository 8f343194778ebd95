//! What of this machine the default root shows: the one list.
//!
//! `floe run` shows a copy of the machine, not of its owner's life. Hidden is what a program has
//! no business to read even as root of a throw-away copy: other people's files, keys, passwords,
//! and the data of services. `--show PATH` opens one; the current directory and the directories
//! in PATH are open wherever they lie.

use std::path::{Path, PathBuf};

/// Directories at the top that are never copied: each container has its own.
pub(super) const FRESH: &[&str] = &["dev", "proc", "run", "sys", "tmp"];

/// Directories that are there, but empty; the mode says who may use them.
pub(super) const EMPTY: &[(&str, u32)] = &[
    ("/root", 0o700),
    ("/home", 0o755),
    ("/boot", 0o755),
    ("/lost+found", 0o700),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/srv", 0o755),
    ("/var/backups", 0o755),
    ("/var/crash", 0o755),
    ("/var/log", 0o755),
    ("/var/mail", 0o2775),
    ("/var/spool", 0o755),
    ("/var/tmp", 0o1777),
    ("/etc/ssl/private", 0o700),
];

/// Files and directories that are not there at all.
pub(super) const ABSENT: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/krb5.keytab",
    "/etc/machine-id",
    "/etc/docker/key.json",
    "/etc/ipsec.secrets",
    "/etc/ipsec.d/private",
    "/etc/iscsi/iscsid.conf",
    "/etc/kubernetes",
    "/etc/letsencrypt",
    "/etc/mysql/debian.cnf",
    "/etc/NetworkManager/system-connections",
    "/etc/openvpn",
    "/etc/pki/tls/private",
    "/etc/ppp/chap-secrets",
    "/etc/ppp/pap-secrets",
    "/etc/ssh/ssh_host_dsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/wireguard",
    "/etc/wpa_supplicant",
];

/// Of these directories only the named entries are shown: whoever installs a service does not
/// know this list, so what it does not name is hidden.
pub(super) const ONLY: &[(&str, &[&str])] = &[(
    "/var/lib",
    &[
        "alternatives",
        "apk",
        "app-info",
        "apt",
        "ca-certificates-java",
        "dictionaries-common",
        "dnf",
        "dpkg",
        "emacsen-common",
        "ghc",
        "ispell",
        "man-db",
        "misc",
        "ocaml",
        "pacman",
        "pam",
        "portables",
        "python",
        "rpm",
        "sgml-base",
        "shells.state",
        "swcatalog",
        "texmf",
        "ucf",
        "vim",
        "xml-core",
    ],
)];

/// Secrets below a home directory, absent also where the home itself is shown.
pub(super) const HOME_SECRETS: &[&str] = &[
    ".aws",
    ".azure",
    ".bash_history",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gcloud",
    ".config/gh",
    ".docker/config.json",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".local/share/keyrings",
    ".local/share/floe",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pypirc",
    ".python_history",
    ".ssh",
    ".vault-token",
    ".zsh_history",
];

/// Tool chains that live beside the directory that PATH names: where the first is in PATH, the
/// second is shown too. None of them holds secrets.
const COMPANIONS: &[(&str, &str)] = &[
    (".cargo/bin", ".rustup"),
    (".pyenv/shims", ".pyenv"),
    (".pyenv/bin", ".pyenv"),
    (".rbenv/shims", ".rbenv"),
    (".nvm", ".nvm"),
    (".sdkman", ".sdkman"),
    ("go/bin", "go"),
];

/// The directories that PATH names and what belongs to them; `home` is the caller's.
#[must_use]
pub(crate) fn path_directories(path: &str, home: Option<&Path>) -> Vec<PathBuf> {
    let mut shown: Vec<PathBuf> = path
        .split(':')
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .collect();
    if let Some(home) = home {
        for (tools, companion) in COMPANIONS {
            if shown.iter().any(|path| path.starts_with(home.join(tools))) {
                shown.push(home.join(companion));
            }
        }
    }
    shown.sort();
    shown.dedup();
    shown
}

/// Whether the current directory may be shown because somebody stands in it. The directories that
/// hold everybody's homes are not: standing in `/home` opens nobody's.
#[must_use]
pub(crate) fn may_show_current(directory: &Path) -> bool {
    let hidden_whole = EMPTY.iter().any(|(path, _)| Path::new(path) == directory);
    directory.components().count() > 1 && (!hidden_whole || directory == Path::new("/root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_chains_follow_their_programs() {
        let home = Path::new("/home/ann");
        let shown = path_directories("/usr/bin:/home/ann/.cargo/bin:.:rel", Some(home));
        let paths = ["/home/ann/.cargo/bin", "/home/ann/.rustup", "/usr/bin"];
        assert_eq!(shown, paths.map(PathBuf::from));
        assert_eq!(
            path_directories("/usr/bin", Some(home)),
            [PathBuf::from("/usr/bin")]
        );
    }

    #[test]
    fn standing_in_everybodys_directory_shows_nothing() {
        for (directory, shown) in [
            ("/", false),
            ("/home", false),
            ("/home/ann", true),
            ("/root", true),
            ("/var/log", false),
            ("/srv/www", true),
        ] {
            assert_eq!(may_show_current(Path::new(directory)), shown, "{directory}");
        }
    }
}
