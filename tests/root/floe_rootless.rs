//! `floe` as an ordinary user.

use std::path::Path;
use std::process::Command;

use tests::floe::busybox;
use tests::{Floe, host, need, skip};

const USER: u32 = 1000;

/// A floe of an ordinary user, where the kernel allows user namespaces.
fn ordinary() -> Option<Floe> {
    host::program("setpriv")?;
    let mut command = Command::new("setpriv");
    let uid = USER.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "unshare", "-U", "true"]);
    command.status().ok()?.success().then(|| Floe::as_user(USER))
}

#[test]
fn the_first_command_runs_as_an_ordinary_user() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    let script = "id -u; hostname | wc -c; touch /etc/made /usr/made /root/made /tmp/made && echo written";
    floe.call(["run", "--rm", "--", "sh", "-c", script]).succeeds().prints("0\n13\nwritten\n");
    assert!(!Path::new("/etc/made").exists());
    floe.call(["run", "--rm", "--", "sh", "-c", "exit 7"]).exits(7);
    floe.line("run --rm -- no-such-program").exits(127);
    floe.line("run --rm --userns host -- true").exits(125).says("needs root");
}

#[test]
fn a_store_that_another_user_prepared_is_refused() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    std::os::unix::fs::chown(floe.path("run"), Some(1234), None).unwrap();
    floe.line("ps").exits(125).says("belongs to user 1234");
    std::os::unix::fs::chown(floe.path("run"), Some(USER), None).unwrap();
    std::os::unix::fs::chown(floe.path(""), Some(1234), None).unwrap();
    floe.line("ps").exits(125).says("belongs to user 1234");
    std::os::unix::fs::chown(floe.path(""), Some(USER), None).unwrap();
    floe.line("ps").succeeds();
}

#[test]
fn secrets_stay_hidden_from_an_ordinary_user() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    floe.call(["run", "--rm", "--", "sh", "-c", "cat /etc/shadow"]).fails();
    floe.call(["run", "--rm", "--", "sh", "-c", "ls -A /home /var/log /root"])
        .succeeds()
        .prints("/home:\n\n/root:\n\n/var/log:\n");
}

#[test]
fn a_detached_container_lives_and_ends() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    floe.line("run -d --name d -- sleep 1000").succeeds();
    assert_eq!(floe.status("d"), "running");
    floe.call(["exec", "d", "sh", "-c", "id -u; echo x >/opt/file"]).succeeds().prints("0\n");
    floe.line("diff d").succeeds().prints("A /opt/file\n");
    let out = floe.path("run/copied").display().to_string();
    floe.call(["cp", "d:/opt/file", &out]).succeeds();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "x\n");
    floe.line("stop -t 0 d").succeeds();
    floe.line("start d").succeeds();
    floe.line("rm -f d").succeeds();
}

#[test]
fn an_archive_is_a_root_for_an_ordinary_user() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    let root = need!(busybox(&floe.path("")), "needs busybox");
    let archive = floe.path("root.tar");
    let mut command = Command::new("tar");
    assert!(command.arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status().unwrap().success());
    let path = archive.display().to_string();
    floe.call(["run", "--rm", "--rootfs", &path, "--", "sh", "-c", "touch /etc/x /x && id -u"])
        .succeeds()
        .prints("0\n");
}

#[test]
fn the_callers_own_id_is_kept_where_asked_for() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    floe.call(["run", "--rm", "--userns", "keep-id", "--", "id", "-u"]).succeeds().prints("1000\n");
}

#[test]
fn subordinate_ids_are_mapped_where_there_are_some() {
    let floe = need!(ordinary(), "needs user namespaces for ordinary users");
    let has = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find(|line| line.split(':').nth(2) == Some("1000"));
        let name = name.and_then(|line| line.split(':').next()).unwrap_or("1000");
        text.lines().any(|line| line.starts_with(&format!("{name}:")) || line.starts_with("1000:"))
    };
    if !has("/etc/subuid") || !has("/etc/subgid") || host::program("newuidmap").is_none() {
        skip!("needs newuidmap and ids of user 1000 in /etc/subuid and /etc/subgid");
    }
    let script = "touch /opt/x && chown 5:5 /opt/x && stat -c %u:%g /opt/x";
    floe.call(["run", "--name", "s", "--", "sh", "-c", script]).succeeds().prints("5:5\n");
    floe.line("rm s").succeeds();
    // The archive's owners are kept, as ids of the user's.
    let root = need!(busybox(&floe.path("")), "needs busybox");
    std::os::unix::fs::chown(root.join("etc/passwd"), Some(7), Some(8)).unwrap();
    let archive = floe.path("root.tar");
    let mut command = Command::new("tar");
    command.arg("-C").arg(root).arg("-cf").arg(&archive).arg(".");
    assert!(command.status().unwrap().success());
    let path = archive.display().to_string();
    let list = ["run", "--rm", "--rootfs", &path, "--", "ls", "-n", "/etc/passwd"];
    let text = floe.call(list).succeeds().stdout();
    let fields: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), ("7", "8"), "{text}");
}
