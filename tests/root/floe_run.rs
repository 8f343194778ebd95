//! `floe run`: the default root, other roots, flags and statuses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::floe::busybox;
use tests::{Floe, host, need, skip};

#[test]
fn the_first_command_runs_on_a_copy_of_this_machine() {
    let floe = Floe::new();
    let outcome = floe.call(["run", "--rm", "--", "sh", "-c", "echo hi; hostname; id -u; pwd"]);
    let text = outcome.succeeds().stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("hi", "0", "/"), "{text}");
    assert_eq!(lines[1].len(), 12, "a short id as host name: {text}");
}

#[test]
fn statuses_are_those_of_docker() {
    let floe = Floe::new();
    floe.line("run --rm -- false").exits(1);
    floe.call(["run", "--rm", "--", "sh", "-c", "exit 7"]).exits(7);
    floe.call(["run", "--rm", "--init", "--", "sh", "-c", "kill -9 $$"]).exits(137);
    floe.line("run --rm -- no-such-program").exits(127).says("executable file not found");
    floe.line("run --rm -- /etc/passwd").exits(126).says("permission denied");
    floe.line("run --no-such-flag").exits(125);
    floe.line("run --rm --rootfs /nowhere -- true").exits(125).says("no such file");
    floe.line("run --rm -p 80:80 -- true").exits(125).says("--net host");
    floe.line("run --rm --name ../evil -- true").exits(125).says("letters, digits");
    floe.line("ps -a -q").succeeds().prints("");
}

#[test]
fn writes_stay_in_the_container() {
    let floe = Floe::new();
    let script = "echo changed >/etc/passwd && rm -r /usr/share/doc; touch /usr/made /made; cat /etc/passwd";
    floe.call(["run", "--name", "w", "--", "sh", "-c", script]).succeeds().prints("changed\n");
    assert!(!Path::new("/usr/made").exists() && !Path::new("/made").exists());
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains("changed"));
    let changes = floe.line("diff w").succeeds().stdout();
    for line in ["C /etc/passwd", "D /usr/share/doc", "A /usr/made", "A /made"] {
        assert!(changes.lines().any(|other| other == line), "{line} in {changes}");
    }
    assert_eq!(changes.lines().count(), 5, "and the directory above: {changes}");
    // It is the same layer at the second start.
    floe.line("start -a w").succeeds().prints("changed\n");
    assert_eq!(floe.line("diff w").succeeds().stdout(), changes);
}

#[test]
fn secrets_of_the_machine_are_hidden() {
    let floe = Floe::new();
    let script = "cat /etc/shadow; ls -A /home /var/log /srv; ls /var/lib/floe /var/lib/docker; ls -d /etc/ssh/*key";
    let outcome = floe.call(["run", "--rm", "--", "sh", "-c", script]).fails();
    let text = outcome.stdout();
    assert_eq!(text, "/home:\n\n/srv:\n\n/var/log:\n", "{text}");
    // One path is opened, and only that.
    let script = "test -s /etc/shadow && ! test -e /etc/gshadow";
    floe.call(["run", "--rm", "--show", "/etc/shadow", "--", "sh", "-c", script]).succeeds();
    floe.line("run --rm --show /no/such/file -- true").exits(125).says("--show");
}

#[test]
fn the_store_is_hidden_even_where_its_directory_is_shown() {
    let floe = Floe::new();
    let directory = floe.path("").display().to_string();
    let outcome = floe.call(["run", "--rm", "--show", &directory, "--", "ls", &directory]);
    outcome.succeeds().prints("out\n");
    let state = floe.path("state").display().to_string();
    floe.call(["run", "--rm", "--show", &state, "--", "ls", &state]).fails();
}

#[test]
fn the_current_directory_is_shown_and_its_changes_are_not_kept() {
    let floe = Floe::new();
    let work = floe.path("work:with,odd name");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("file"), "content\n").unwrap();
    std::fs::write(floe.path("beside"), "").unwrap();
    let script = "cat file; echo new >file; ls ..";
    let mut command = floe.command(["run", "--rm", "--", "sh", "-c", script]);
    let output = command.current_dir(&work).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "content\nwork:with,odd name\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(work.join("file")).unwrap(), "content\n");
}

#[test]
fn what_is_hidden_cannot_be_uncovered_from_inside() {
    let floe = Floe::new();
    // Even with the right to mount: there is no mask to take off.
    let script = "umount /etc/shadow /root /home /etc/ssl/private 2>/dev/null; \
                  ! cat /etc/shadow && test -z \"$(ls -A /home)\" && ! ls /var/lib/floe";
    floe.call(["run", "--rm", "--cap-add", "SYS_ADMIN", "--", "sh", "-c", script]).succeeds();
}

#[test]
fn a_layer_in_memory_lies_on_a_tmpfs() {
    let floe = Floe::new();
    let script = "touch /etc/x && sed -n 's/.*upperdir=\\([^,]*\\).*/\\1/p' /proc/mounts | head -n1";
    let outcome = floe.call(["run", "--name", "m", "--tmpfs-layer", "--", "sh", "-c", script]);
    let layer = outcome.succeeds().stdout();
    let layer = layer.trim().trim_end_matches("/0/upper");
    assert!(!Path::new(layer).starts_with(floe.path("state")), "{layer}");
    assert!(Path::new(layer).exists());
    floe.line("rm m").succeeds();
    assert!(!Path::new(layer).exists());
}

#[test]
fn a_directory_is_a_root_that_is_not_written_to() {
    let floe = Floe::new();
    let root = need!(busybox(&floe.path("")), "needs busybox");
    let path = root.display().to_string();
    let script = "touch /etc/made /made /bin/made; ls /";
    floe.call(["run", "--rm", "--rootfs", &path, "--", "sh", "-c", script])
        .succeeds()
        .prints("bin\ndev\netc\nmade\nproc\nsys\n");
    assert!(!root.join("made").exists() && !root.join("etc/made").exists());
    let writable = format!("{path}:rw");
    floe.call(["run", "--rm", "--rootfs", &writable, "--", "touch", "/made"]).succeeds();
    assert!(root.join("made").exists());
}

#[test]
fn archives_are_roots_whatever_packs_them() {
    let floe = Floe::new();
    let root = need!(busybox(&floe.path("")), "needs busybox");
    let archive = floe.path("root.tar");
    tar(&root, &archive);
    let mut names = vec!["root.tar"];
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
        if host::program(program).is_none() {
            skip!("needs {program}");
        }
        let packed = std::fs::File::create(floe.path(&format!("root.tar.{suffix}"))).unwrap();
        let status = Command::new(program).arg("-c").arg(&archive).stdout(packed).status().unwrap();
        assert!(status.success());
        names.push(if suffix == "gz" { "root.tar.gz" } else { "root.tar.zst" });
    }
    for name in names {
        let path = floe.path(name).display().to_string();
        floe.call(["run", "--rm", "-u", "app", "--rootfs", &path, "--", "id", "-u"])
            .succeeds()
            .prints("1000\n");
    }
    let garbage = floe.path("garbage");
    std::fs::write(&garbage, [7_u8; 2000]).unwrap();
    let path = garbage.display().to_string();
    floe.call(["run", "--rm", "--rootfs", &path, "--", "true"]).exits(125).says("read archive");
    assert_eq!(std::fs::read_dir(floe.path("state/layers")).unwrap().count(), 3);
}

fn tar(directory: &Path, archive: &Path) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(directory).arg("-cf").arg(archive).arg(".");
    assert!(command.status().expect("tar").success());
}

#[test]
fn an_image_layout_has_layers_and_a_process() {
    let floe = Floe::new();
    let root = need!(busybox(&floe.path("")), "needs busybox");
    if host::program("sha256sum").is_none() {
        skip!("needs sha256sum");
    }
    let layout = floe.path("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    std::fs::write(root.join("etc/gone"), "x").unwrap();
    tar(&root, &floe.path("one.tar"));
    let upper = floe.path("upper");
    std::fs::create_dir_all(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/.wh.gone"), "").unwrap();
    std::fs::write(upper.join("etc/added"), "added\n").unwrap();
    tar(&upper, &floe.path("two.tar"));
    let blob = |text: &[u8]| {
        let path = layout.join("blob");
        std::fs::write(&path, text).unwrap();
        let output = Command::new("sha256sum").arg(&path).output().unwrap();
        let hex = String::from_utf8_lossy(&output.stdout)[..64].to_owned();
        std::fs::rename(path, layout.join("blobs/sha256").join(&hex)).unwrap();
        serde_json::json!({ "digest": format!("sha256:{hex}"), "size": text.len() })
    };
    let layers = ["one.tar", "two.tar"].map(|name| blob(&std::fs::read(floe.path(name)).unwrap()));
    let config = serde_json::json!({ "config": {
        "Entrypoint": ["sh", "-c"], "Cmd": ["cat /etc/added; ls /etc/gone; echo $IMAGE; pwd; id -u"],
        "Env": ["PATH=/bin", "IMAGE=yes"], "WorkingDir": "/etc", "User": "app",
    }});
    let config = blob(config.to_string().as_bytes());
    let manifest = serde_json::json!({ "config": config, "layers": layers });
    let manifest = blob(manifest.to_string().as_bytes());
    let index = serde_json::json!({ "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let path = layout.display().to_string();
    floe.call(["run", "--rm", "--rootfs", &path])
        .succeeds()
        .prints("added\nyes\n/etc\n1000\n")
        .says("/etc/gone");
    // A layer that is not what its digest says.
    let hex = layers[1]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    std::fs::write(layout.join("blobs/sha256").join(hex), "other").unwrap();
    floe.call(["run", "--rm", "--rootfs", &path]).exits(125).says("digest");
}

#[test]
fn streams_are_passed_whole_and_apart() {
    let floe = Floe::new();
    let input: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let outcome = floe.feed(["run", "--rm", "-i", "--", "md5sum"], &input);
    let own = floe.path("input");
    std::fs::write(&own, &input).unwrap();
    let expected = Command::new("md5sum").arg(&own).output().unwrap();
    let expected = String::from_utf8_lossy(&expected.stdout)[..32].to_owned();
    assert!(outcome.succeeds().stdout().starts_with(&expected));
    floe.call(["run", "--rm", "--", "sh", "-c", "echo out; echo err >&2"])
        .succeeds()
        .prints("out\n")
        .says("err");
    // Without -i there is no input.
    floe.feed(["run", "--rm", "--", "cat"], b"never seen").succeeds().prints("");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let floe = Floe::new();
    let mut command = floe.command(["run", "--rm", "--", "sh", "-c", "while echo y; do :; done"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(!child.wait().unwrap().success());
    tests::wait_until("the store is empty", || {
        let ids = floe.line("ps -a -q").succeeds().stdout();
        for id in ids.lines() {
            let _ = floe.call(["rm", "-f", id]);
        }
        ids.is_empty()
    });
}

#[test]
fn process_flags_reach_the_process() {
    let floe = Floe::new();
    let file = floe.path("env");
    std::fs::write(&file, "# comment\nFROM_FILE=yes\nBOTH=file\n").unwrap();
    let cid = floe.path("cid").display().to_string();
    let file = file.display().to_string();
    let script = "echo $FROM_FILE $BOTH $HOST_VALUE; pwd; id -u; id -g; hostname; ulimit -n; cat /proc/self/oom_score_adj";
    let args = [
        "run", "--rm", "--env-file", &file, "-e", "BOTH=flag", "-e", "HOST_VALUE", "-w", "/usr",
        "-u", "nobody:daemon", "--hostname", "ice", "--ulimit", "nofile=100:200",
        "--oom-score-adj", "500", "--cidfile", &cid, "--", "sh", "-c", script,
    ];
    let mut command = floe.command(args);
    let output = command.env("HOST_VALUE", "host").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "yes flag host\n/usr\n65534\n1\nice\n100\n500\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(std::fs::read_to_string(&cid).unwrap().len(), 64);
    floe.call(["run", "--rm", "--cidfile", &cid, "--", "true"]).exits(125).says("cidfile");
    floe.line("run --rm --entrypoint echo -- a b").succeeds().prints("a b\n");
}

#[test]
fn limits_are_in_the_containers_group() {
    if host::has("/run/systemd/system") {
        tests::elsewhere!("systemd makes the groups here: systemd_floe has this test");
    }
    let floe = Floe::new();
    let hierarchy = need!(host::controller("memory"), "needs the memory controller");
    let pids = need!(host::controller("pids"), "needs the pids controller");
    let args = "run -d --name l -m 64m --pids 40 --cpus 0.5 -- sleep 1000";
    let id = floe.line(args).succeeds().stdout().trim().to_owned();
    let read = |hierarchy: &Path, names: [&str; 2]| {
        let group = hierarchy.join("floe").join(&id);
        let texts = names.iter().filter_map(|name| std::fs::read_to_string(group.join(name)).ok());
        texts.map(|text| text.trim().to_owned()).next().unwrap_or_default()
    };
    let memory = || read(&hierarchy, ["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory(), "67108864");
    assert_eq!(read(&pids, ["pids.max", "pids.max"]), "40");
    floe.line("update -m 128m --pids 50 l").succeeds();
    assert_eq!(memory(), "134217728");
    assert_eq!(read(&pids, ["pids.max", "pids.max"]), "50");
    let stats = floe.line("stats --no-stream --format json l").succeeds().json();
    assert_eq!(stats[0]["memoryLimit"], 134_217_728);
    assert_eq!(stats[0]["pids"], 1);
    // The new limits hold for the next start too.
    floe.line("restart -t 0 l").succeeds();
    assert_eq!(memory(), "134217728");
}

#[test]
fn too_much_memory_is_killed() {
    let floe = Floe::new();
    need!(host::controller("memory"), "needs the memory controller");
    let script = "head -c 200m /dev/zero | tail";
    floe.call(["run", "--rm", "-m", "32m", "--", "sh", "-c", script]).exits(137);
}

#[test]
fn volumes_and_mounts_are_where_they_were_asked_for() {
    let floe = Floe::new();
    let shared = floe.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("in"), "in\n").unwrap();
    let volume = format!("{}:/data", shared.display());
    let read_only = format!("{}:/fixed:ro", shared.display());
    let mount = format!("type=bind,source={},target=/third,readonly", shared.display());
    let script = "cat /data/in && echo out >/data/out && ! touch /fixed/x && ! touch /third/x && \
                  touch /scratch/x && grep -q ' /scratch tmpfs .*size=1024k' /proc/mounts && \
                  echo kept >>/named/file && cat /named/file";
    let args = [
        "run", "--rm", "-v", &volume, "-v", &read_only, "--mount", &mount, "--tmpfs",
        "/scratch:size=1m", "-v", "data:/named", "--read-only", "--", "sh", "-c", script,
    ];
    floe.call(args).succeeds().prints("in\nkept\n");
    assert_eq!(std::fs::read_to_string(shared.join("out")).unwrap(), "out\n");
    floe.call(args).succeeds().prints("in\nkept\nkept\n");
    floe.line("run --rm --read-only -- touch /etc/x").fails();
}

#[test]
fn networks_are_private_or_the_hosts() {
    let floe = Floe::new();
    let count = "grep -c : /proc/net/dev";
    floe.call(["run", "--rm", "--", "sh", "-c", count]).succeeds().prints("1\n");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string() + "\n";
    let link = ["readlink", "/proc/self/ns/net"];
    floe.call(["run", "--rm", "--net", "host", "--", link[0], link[1]]).succeeds().prints(&own);
    let id = floe.line("run -d --name first -- sleep 1000").succeeds().stdout();
    let pid = floe.inspect(id.trim())["state"]["pid"].to_string();
    let theirs = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    floe.call(["run", "--rm", "--net", "container:first", "--", link[0], link[1]])
        .succeeds()
        .prints(&format!("{}\n", theirs.display()));
}

#[test]
fn names_are_provided() {
    let floe = Floe::new();
    let script = "grep -q 'localhost ice' /etc/hosts && cat /etc/hostname && cat /etc/resolv.conf";
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    floe.call(["run", "--rm", "--hostname", "ice", "--", "sh", "-c", script])
        .succeeds()
        .prints(&format!("ice\n{resolv}"));
}

#[test]
fn an_init_reaps_and_forwards() {
    let floe = Floe::new();
    let script = "(sleep 0.1 &) ; sleep 0.4; ps -e -o stat= | grep -c Z";
    floe.call(["run", "--rm", "--init", "--", "sh", "-c", script]).exits(1).prints("0\n");
    floe.call(["run", "--rm", "--init", "--", "sh", "-c", "exit 9"]).exits(9);
    // A signal before the init listens is lost, as with any first process.
    let script = "echo ready; exec sleep 1000";
    floe.call(["run", "-d", "--name", "i", "--init", "--", "sh", "-c", script]).succeeds();
    tests::wait_until("it is ready", || floe.line("logs i").succeeds().stdout() == "ready\n");
    floe.line("stop -t 60 i").succeeds();
    assert_eq!(floe.inspect("i")["state"]["exitCode"], 143);
}

#[test]
fn clocks_are_moved() {
    let floe = Floe::new();
    if !host::has("/proc/self/ns/time") {
        skip!("needs time namespaces");
    }
    let up = floe.line("run --rm --time-offset 100d -- cat /proc/uptime").succeeds().stdout();
    let seconds: f64 = up.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 100.0 * 86_400.0, "{up}");
}

#[test]
fn capabilities_and_filters_are_what_was_asked_for() {
    let floe = Floe::new();
    let show = ["grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", "/proc/self/status"];
    let run = |flags: &str| {
        let args = ["run", "--rm"].into_iter().chain(flags.split_whitespace());
        floe.call(args.chain(["--"]).chain(show)).succeeds().stdout()
    };
    assert_eq!(run("--cap-drop ALL"), "CapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n");
    let text = run("--cap-drop ALL --cap-add KILL --security-opt no-new-privileges --security-opt seccomp=unconfined");
    assert_eq!(text, "CapEff:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t0\n");
    floe.line("run --rm -- unshare -U true").fails();
    floe.line("run --rm --sysctl net.ipv4.ip_forward=1 -- cat /proc/sys/net/ipv4/ip_forward")
        .succeeds()
        .prints("1\n");
    floe.line("run --rm --device /dev/null:/dev/other:rw -- sh -c echo>/dev/other").succeeds();
}

#[test]
fn a_user_namespace_makes_root_somebody_else() {
    let floe = Floe::new();
    let root = need!(busybox(&floe.path("")), "needs busybox");
    let archive = floe.path("root.tar");
    tar(&root, &archive);
    let path = archive.display().to_string();
    let script = "id -u; touch /etc/made; ls -n /etc/made /bin/busybox";
    let args = ["run", "--name", "u", "--userns", "0:200000:65536", "--rootfs", &path, "--", "sh", "-c", script];
    let text = floe.call(args).succeeds().stdout();
    let owners: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert!(text.starts_with("0\n") && owners.iter().all(|line| line[2] == "0"), "{text}");
    let layer = floe.inspect("u")["layer"].as_str().unwrap().to_owned();
    let found = Command::new("find").args([&layer, "-uid", "0", "-type", "f"]).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn the_default_root_works_in_a_user_namespace() {
    let floe = Floe::new();
    let script = "id -u; touch /etc/made /usr/made && cat /proc/self/uid_map | tr -s ' '";
    let args = ["run", "--rm", "--userns", "0:200000:65536", "--", "sh", "-c", script];
    floe.call(args).succeeds().prints("0\n 0 200000 65536\n");
}

#[test]
fn namespaces_of_the_host_are_shared_where_asked_for() {
    let floe = Floe::new();
    for (flag, file) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--net", "net")] {
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        let inside = format!("/proc/self/ns/{file}");
        floe.call(["run", "--rm", flag, "host", "--", "readlink", &inside])
            .succeeds()
            .prints(&format!("{}\n", own.display()));
    }
}

#[test]
fn a_privileged_container_has_what_floe_has() {
    let floe = Floe::new();
    let script = "grep -c 'Seccomp:.*0' /proc/self/status; mount -t tmpfs none /mnt && echo mounted; \
                  sed -n 's/CapEff:.//p' /proc/self/status";
    let text = floe.call(["run", "--rm", "--privileged", "--", "sh", "-c", script]).succeeds().stdout();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert_eq!(text, format!("1\nmounted\n{own}\n"));
}

#[test]
fn nobody_else_on_the_host_reaches_a_containers_files() {
    let floe = Floe::new();
    floe.call(["run", "--name", "s", "--", "sh", "-c", "cp /bin/sleep /usr/trap && chmod 4755 /usr/trap"])
        .succeeds();
    let layer = floe.inspect("s")["layer"].as_str().unwrap().to_owned();
    let found = Command::new("find").args([&layer, "-name", "trap"]).output().unwrap();
    let trap = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    assert!(Path::new(&trap).metadata().unwrap().permissions().mode() & 0o4000 != 0);
    // By way of a shell: setpriv itself still has its capabilities when it executes.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c"]);
    let status = command.arg(format!("exec {trap} 0")).status().unwrap();
    assert!(!status.success(), "a set-id program of a container ran");
}
