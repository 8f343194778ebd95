//! `floe cp`.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tests::Floe;

#[test]
fn files_and_trees_go_both_ways_as_with_docker() {
    let floe = Floe::new();
    floe.call(["run", "-d", "--name", "c", "--", "sleep", "1000"]).succeeds();
    let tree = floe.path("tree");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    std::fs::write(tree.join("deep/file"), "content\n").unwrap();
    std::fs::set_permissions(tree.join("deep/file"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("deep/file", tree.join("link")).unwrap();
    let tree = tree.display().to_string();
    floe.call(["cp", &tree, "c:/opt"]).succeeds();
    floe.line("exec c cat /opt/tree/link").succeeds().prints("content\n");
    floe.line("exec c stat -c %a:%u /opt/tree/deep/file").succeeds().prints("640:0\n");
    floe.call(["cp", &tree, "c:/opt/new"]).succeeds();
    floe.line("exec c ls /opt/new").succeeds().prints("deep\nlink\n");
    floe.call(["cp", &format!("{tree}/."), "c:/opt/new/deep"]).succeeds();
    floe.line("exec c ls /opt/new/deep").succeeds().prints("deep\nfile\nlink\n");
    let out = floe.path("copied").display().to_string();
    floe.call(["cp", "c:/opt/tree/deep/file", &out]).succeeds();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "content\n");
    floe.call(["cp", "-L", "c:/opt/tree/link", &format!("{out}2")]).succeeds();
    assert!(std::fs::symlink_metadata(format!("{out}2")).unwrap().is_file());
    floe.call(["cp", "c:/no/such", &out]).exits(125).says("/no");
    floe.call(["cp", &tree, &out]).exits(125).says("CONTAINER:PATH");
    // The same of a container that does not run, whose status stays as it is.
    floe.line("stop -t 0 c").succeeds();
    floe.call(["cp", "c:/opt/tree/deep/file", &format!("{out}3")]).succeeds();
    assert_eq!(std::fs::read_to_string(format!("{out}3")).unwrap(), "content\n");
    floe.call(["cp", &out, "c:/opt/late"]).succeeds();
    assert_eq!(floe.inspect("c")["state"]["exitCode"], 137);
    floe.line("start c").succeeds();
    floe.line("exec c cat /opt/late").succeeds().prints("content\n");
}

#[test]
fn links_in_the_container_do_not_lead_to_the_host() {
    let floe = Floe::new();
    let victim = floe.path("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("secret"), "secret\n").unwrap();
    let path = victim.display().to_string();
    // Nothing of this path exists inside, so that only the host's could be meant.
    let script = format!("ln -s {path} /opt/out; ln -s {path}/secret /opt/file; echo ok; exec sleep 1000");
    floe.call(["run", "-d", "--name", "h", "--", "sh", "-c", &script]).succeeds();
    tests::wait_until("the links are there", || floe.line("logs h").succeeds().stdout() == "ok\n");
    let own = floe.path("own").display().to_string();
    std::fs::write(&own, "own\n").unwrap();
    // Into a directory by way of a link.
    floe.call(["cp", &own, "h:/opt/out/secret"]).fails();
    // Onto a link: the link is replaced.
    floe.call(["cp", &own, "h:/opt/file"]).succeeds();
    assert_eq!(std::fs::read_to_string(victim.join("secret")).unwrap(), "secret\n");
    let out = floe.path("stolen").display().to_string();
    floe.call(["cp", "-L", "h:/opt/out/secret", &out]).fails();
    assert!(!std::path::Path::new(&out).exists());
    // Copied as a link, a link stays a link.
    floe.call(["cp", "h:/opt/out", &out]).succeeds();
    assert!(std::fs::symlink_metadata(&out).unwrap().is_symlink());
}

#[test]
fn set_id_bits_and_owners_do_not_come_out() {
    let floe = Floe::new();
    let script = "cp /bin/true /opt/trap; chown 1000:1000 /opt/trap; chmod 6755 /opt/trap; mkfifo /opt/pipe";
    floe.call(["run", "--name", "s", "--", "sh", "-c", script]).succeeds();
    let out = floe.path("trap").display().to_string();
    floe.call(["cp", "s:/opt/trap", &out]).succeeds();
    let metadata = std::fs::metadata(&out).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, 0));
    floe.call(["cp", "-a", "s:/opt/trap", &out]).succeeds();
    let metadata = std::fs::metadata(&out).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, 1000));
    floe.call(["cp", "s:/opt/pipe", &floe.path("pipe").display().to_string()]).succeeds();
}

#[test]
fn no_program_of_the_container_is_executed_or_loaded() {
    let floe = Floe::new();
    // CVE-2019-14271: a library of the container, loaded by the copying helper as root.
    let script = "rm -f /usr/lib/*-linux-gnu/libnss_* /etc/nsswitch.conf; \
                  printf '#!/bin/sh\\ntouch /tmp/owned' >/usr/bin/tar; chmod 755 /usr/bin/tar; \
                  cp /usr/bin/tar /usr/bin/cp; echo data >/opt/data";
    floe.call(["run", "--name", "x", "--", "sh", "-c", script]).succeeds();
    let out = floe.path("data").display().to_string();
    floe.call(["cp", "x:/opt/data", &out]).succeeds();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "data\n");
    let changes = floe.line("diff x").succeeds().stdout();
    assert!(!changes.contains("owned"), "{changes}");
}
