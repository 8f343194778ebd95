//! Rows of one good configuration with one thing changed.

use serde_json::{Value, json};

use super::*;
use crate::spec::parse;

fn good() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}]},
    })
}

/// The good configuration with `patch` merged into it: objects member by member, `null` deletes.
fn changed(patch: &Value) -> Spec {
    fn merge(into: &mut Value, patch: &Value) {
        match (into, patch) {
            (Value::Object(into), Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (into, patch) => *into = patch.clone(),
        }
    }
    let mut value = good();
    merge(&mut value, patch);
    parse(value.to_string().as_bytes()).unwrap()
}

#[track_caller]
fn accepted(patch: &Value) -> Vec<String> {
    validate(&changed(patch)).unwrap_or_else(|error| panic!("{patch}: {error}"))
}

#[track_caller]
fn refused(rows: &[(Value, &str)]) {
    for (patch, wanted) in rows {
        let error = validate(&changed(patch))
            .expect_err(&patch.to_string())
            .to_string();
        assert_eq!(error, format!("config.json: {wanted}"), "{patch}");
    }
}

fn namespaces(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

/// Mappings from triples of container id, host id and size.
fn maps(triples: &[[u32; 3]]) -> Value {
    triples
        .iter()
        .map(|[c, h, s]| json!({"containerID": c, "hostID": h, "size": s}))
        .collect()
}

#[test]
fn a_small_configuration_is_accepted_without_a_word() {
    assert_eq!(accepted(&json!({})), Vec::<String>::new());
    for version in ["1.0.2-dev", "1.0.0", "1.99.0+x"] {
        accepted(&json!({"ociVersion": version}));
    }
}

#[test]
fn what_is_required_is_required() {
    refused(&[
        (json!({"ociVersion": null}), "ociVersion: required"),
        (
            json!({"ociVersion": "2.0.0"}),
            "ociVersion: `2.0.0`: only version 1 is supported",
        ),
        (
            json!({"ociVersion": "10.0"}),
            "ociVersion: `10.0`: only version 1 is supported",
        ),
        (json!({"root": null}), "root.path: required"),
        (json!({"root": {"path": ""}}), "root.path: required"),
        (json!({"process": {"args": []}}), "process.args: required"),
        (
            json!({"process": {"cwd": ""}}),
            "process.cwd: must be an absolute path",
        ),
        (
            json!({"process": {"cwd": "tmp"}}),
            "process.cwd: must be an absolute path",
        ),
    ]);
}

#[test]
fn process_values_outside_their_range_are_refused() {
    let fifo = |priority| json!({"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": priority}}});
    let deadline = |runtime: u64, deadline: u64, period: u64| json!({"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline, "period": period}}});
    accepted(&fifo(99));
    accepted(&deadline(1, 2, 3));
    accepted(&deadline(1, 2, 0));
    accepted(&json!({"process": {"consoleSize": {"height": 70000}}}));
    refused(&[
        (
            json!({"process": {"env": ["A=1", "B"]}}),
            "process.env[1]: must be NAME=value",
        ),
        (
            json!({"process": {"env": ["=1"]}}),
            "process.env[0]: must be NAME=value",
        ),
        (
            json!({"process": {"user": {"uid": 4294967295u32}}}),
            "process.user.uid: 4294967295 is no id",
        ),
        (
            json!({"process": {"user": {"umask": 512}}}),
            "process.user.umask: only permission bits",
        ),
        (
            json!({"process": {"oomScoreAdj": 1001}}),
            "process.oomScoreAdj: 1001 is not in -1000..1000",
        ),
        (
            json!({"process": {"terminal": true, "consoleSize": {"height": 70000}}}),
            "process.consoleSize.height: more than 65535",
        ),
        (
            json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}}),
            "process.ioPriority.priority: 8 is not in 0..7",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}}),
            "process.scheduler.nice: 20 is not in -20..19",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "priority": 1}}}),
            "process.scheduler.priority: only for SCHED_FIFO and SCHED_RR",
        ),
        (fifo(0), "process.scheduler.priority: 0 is not in 1..99"),
        (
            deadline(3, 2, 4),
            "process.scheduler: must be 0 < runtime <= deadline <= period",
        ),
        (
            json!({"process": {"scheduler": {"policy": "SCHED_IDLE", "runtime": 1}}}),
            "process.scheduler: runtime, deadline, period are for SCHED_DEADLINE",
        ),
        (
            json!({"process": {"execCPUAffinity": {"final": "1-"}}}),
            "process.execCPUAffinity.final: `1-` is no list of CPUs",
        ),
    ]);
}

#[test]
fn resource_limits_are_known_given_once_and_in_order() {
    let limits = |rows: Value| json!({"process": {"rlimits": rows}});
    accepted(&limits(
        json!([{"type": "RLIMIT_CPU", "soft": 5, "hard": 5}]),
    ));
    refused(&[
        (
            limits(json!([{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_FOO"}])),
            "process.rlimits[1].type: `RLIMIT_FOO` is no resource limit",
        ),
        (
            limits(json!([{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_CPU"}])),
            "process.rlimits[1].type: `RLIMIT_CPU` given twice",
        ),
        (
            limits(json!([{"type": "RLIMIT_CPU", "soft": 6, "hard": 5}])),
            "process.rlimits[0].soft: above the hard limit",
        ),
    ]);
}

#[test]
fn what_peers_let_pass_is_a_warning() {
    let warnings = accepted(&json!({
        "process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_MOON"]}},
        "mounts": [{"destination": "proc", "type": "proc"}],
        "linux": {"personality": {"domain": "LINUX", "flags": ["X"]}},
    }));
    assert_eq!(
        warnings,
        [
            "config.json: process.capabilities.bounding[1]: unknown capability `CAP_MOON` ignored",
            "config.json: mounts[0].destination: relative, taken from the container's root",
            "config.json: linux.personality.flags: none is defined, ignored",
        ]
    );
}

#[test]
fn namespaces_are_given_once_by_absolute_path() {
    refused(&[
        (
            json!({"linux": {"namespaces": namespaces(&["pid", "ipc", "pid"])}}),
            "linux.namespaces[2].type: given twice",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "pid", "path": "proc/1/ns/pid"}]}}),
            "linux.namespaces[0].path: must be an absolute path",
        ),
    ]);
}

#[test]
fn fields_need_the_namespace_that_they_change() {
    accepted(
        &json!({"hostname": "h", "domainname": "d", "linux": {"namespaces": namespaces(&["uts"])}}),
    );
    let time = [
        json!({"type": "time"}),
        json!({"type": "time", "path": "/p"}),
    ];
    let offsets = |namespaces: Value, clocks: Value| json!({"linux": {"namespaces": namespaces, "timeOffsets": clocks}});
    accepted(&offsets(
        json!([time[0]]),
        json!({"boottime": {"secs": -1}}),
    ));
    let one = json!({"boottime": {"secs": 1}});
    refused(&[
        (json!({"hostname": "h"}), "hostname: needs a uts namespace"),
        (
            json!({"domainname": "h"}),
            "domainname: needs a uts namespace",
        ),
        (
            json!({"hostname": "h".repeat(65), "linux": {"namespaces": namespaces(&["uts"])}}),
            "hostname: longer than 64 bytes",
        ),
        (
            json!({"linux": {"namespaces": [], "maskedPaths": ["/x"]}}),
            "linux.maskedPaths: needs a mount namespace",
        ),
        (
            offsets(json!([]), one.clone()),
            "linux.timeOffsets: needs a time namespace",
        ),
        (
            offsets(json!([time[1]]), one),
            "linux.timeOffsets: only a new time namespace takes offsets",
        ),
        (
            offsets(json!([time[0]]), json!({"realtime": {}})),
            "linux.timeOffsets.realtime: no such clock",
        ),
        (
            offsets(
                json!([time[0]]),
                json!({"boottime": {"nanosecs": 1_000_000_000}}),
            ),
            "linux.timeOffsets.boottime.nanosecs: must be less than 1000000000",
        ),
    ]);
}

#[test]
fn a_user_namespace_has_mappings_and_mappings_a_user_namespace() {
    let user = |uids: &[[u32; 3]], gids: &[[u32; 3]], namespaces: Value| json!({"linux": {"namespaces": namespaces, "uidMappings": maps(uids), "gidMappings": maps(gids)}});
    let new = || namespaces(&["user"]);
    let join = json!([{"type": "user", "path": "/proc/1/ns/user"}]);
    accepted(&user(
        &[[0, 1000, 1], [1, 100_000, 65536]],
        &[[0, 1000, 1]],
        new(),
    ));
    accepted(&user(&[], &[], join.clone()));
    accepted(&user(&[[5, 1000, 1]], &[[0, 1000, 1]], join));
    let good = &[[0, 1000, 10]];
    refused(&[
        (
            user(good, good, json!([])),
            "linux.uidMappings: needs a user namespace",
        ),
        (
            user(&[], good, new()),
            "linux.uidMappings: required with a new user namespace",
        ),
        (
            user(good, &[], new()),
            "linux.gidMappings: required with a new user namespace",
        ),
        (
            user(&[[0, 0, 0]], good, new()),
            "linux.uidMappings[0].size: must be more than 0",
        ),
        (
            user(&[[0, u32::MAX, 1]], good, new()),
            "linux.uidMappings[0].hostID: range ends above 2^32-1",
        ),
        (
            user(good, &[[0, 0, 5], [4, 100, 1]], new()),
            "linux.gidMappings[1]: overlaps linux.gidMappings[0]",
        ),
        (
            user(&[[0, 10, 5], [5, 14, 5]], good, new()),
            "linux.uidMappings[1]: overlaps linux.uidMappings[0]",
        ),
        (
            user(&[[1, 0, 5]], good, new()),
            "process.user.uid: 0 has no mapping",
        ),
        (
            user(good, &[[1, 0, 5]], new()),
            "process.user.gid: 0 has no mapping",
        ),
    ]);
}

#[test]
fn sysctls_are_those_of_own_namespaces() {
    let sysctl = |name: &str, kinds: &[&str]| json!({"linux": {"namespaces": namespaces(kinds), "sysctl": {name: "1"}}});
    for (name, kind) in [
        ("kernel.shmmax", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("net.ipv4.ip_forward", "network"),
        ("net/core/somaxconn", "network"),
        ("kernel.domainname", "uts"),
        ("user.max_pid_namespaces", "user"),
    ] {
        let patch = sysctl(name, &["mount"]);
        let wanted = format!("linux.sysctl.{name}: needs a namespace of its own: {kind}");
        refused(&[(patch, &wanted)]);
        if kind != "user" {
            accepted(&sysctl(name, &[kind]));
        }
    }
    for name in [
        "kernel.core_pattern",
        "vm.swappiness",
        "kernel.shm",
        "fs.file-max",
    ] {
        let wanted = format!("linux.sysctl.{name}: belongs to no namespace, would change the host");
        refused(&[(sysctl(name, &["ipc", "network", "uts", "pid"]), &wanted)]);
    }
    refused(&[
        (
            sysctl("kernel.hostname", &["uts"]),
            "linux.sysctl.kernel.hostname: use the field `hostname`",
        ),
        (
            sysctl("net/../kernel/core_pattern", &["network"]),
            "linux.sysctl.net/../kernel/core_pattern: no parameter's name",
        ),
    ]);
}

#[test]
fn mounts_have_a_place_and_a_kind() {
    let mount = |mount: Value| json!({"mounts": [mount]});
    accepted(&mount(
        json!({"destination": "/a", "type": "bind", "source": "x"}),
    ));
    accepted(&mount(
        json!({"destination": "/a", "source": "x", "options": ["rbind", "mode=755"]}),
    ));
    refused(&[
        (
            mount(json!({"type": "proc"})),
            "mounts[0].destination: required",
        ),
        (
            mount(json!({"destination": "/a"})),
            "mounts[0].type: required",
        ),
        (
            mount(json!({"destination": "/a", "options": ["bind"]})),
            "mounts[0].source: required for a bind mount",
        ),
    ]);
}

#[test]
fn idmapped_mounts_are_binds_with_both_mappings_or_the_containers() {
    let mount = |mount: Value| json!({"mounts": [mount]});
    let map = maps(&[[0, 1000, 1]]);
    let bind = json!({"destination": "/a", "type": "bind", "source": "/x", "options": ["idmap"]});
    let with = |fields: Value| {
        let mut mount = bind.clone();
        mount
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({"mounts": [mount]})
    };
    accepted(&with(json!({"uidMappings": map, "gidMappings": map})));
    refused(&[
        (
            mount(json!({"destination": "/a", "type": "tmpfs", "options": ["ridmap"]})),
            "mounts[0]: only a bind mount can be idmapped",
        ),
        (
            with(json!({})),
            "mounts[0]: idmap needs uidMappings and gidMappings, or a user namespace",
        ),
        (
            with(json!({"uidMappings": map})),
            "mounts[0].gidMappings: required, as the other is given",
        ),
        (
            with(json!({"uidMappings": maps(&[[0, 0, 2], [1, 5, 1]]), "gidMappings": map})),
            "mounts[0].uidMappings[1]: overlaps mounts[0].uidMappings[0]",
        ),
    ]);
}

#[test]
fn hooks_have_an_absolute_path_and_time_to_run() {
    let hook = |hook: Value| json!({"hooks": {"poststop": [{"path": "/a"}, hook]}});
    accepted(&hook(json!({"path": "/a", "timeout": 1})));
    refused(&[
        (
            hook(json!({"path": "a"})),
            "hooks.poststop[1].path: must be an absolute path",
        ),
        (
            hook(json!({})),
            "hooks.poststop[1].path: must be an absolute path",
        ),
        (
            hook(json!({"path": "/a", "timeout": 0})),
            "hooks.poststop[1].timeout: must be more than 0",
        ),
    ]);
}

#[test]
fn linux_fields_hold_what_the_kernel_takes() {
    let linux = |linux: Value| json!({"linux": linux});
    let device = |major: i64, kind: &str| {
        linux(json!({"devices": [{"path": "/dev/x", "type": kind, "major": major, "minor": 1}]}))
    };
    let policy =
        |mode: &str, nodes: &str| linux(json!({"memoryPolicy": {"mode": mode, "nodes": nodes}}));
    accepted(&device(4095, "c"));
    accepted(&device(-7, "p"));
    accepted(&policy("MPOL_PREFERRED", ""));
    refused(&[
        (
            linux(json!({"rootfsPropagation": "moon"})),
            "linux.rootfsPropagation: unknown `moon`",
        ),
        (
            linux(json!({"maskedPaths": ["/a", "b"]})),
            "linux.maskedPaths[1]: must be an absolute path",
        ),
        (
            linux(json!({"readonlyPaths": ["b"]})),
            "linux.readonlyPaths[0]: must be an absolute path",
        ),
        (
            linux(json!({"devices": [{"path": "dev/x", "type": "c"}]})),
            "linux.devices[0].path: must be an absolute path",
        ),
        (
            device(4096, "c"),
            "linux.devices[0].major: 4096 is not in 0..4095",
        ),
        (
            device(-1, "b"),
            "linux.devices[0].major: -1 is not in 0..4095",
        ),
        (
            linux(json!({"intelRdt": {"closID": "../x"}})),
            "linux.intelRdt.closID: `../x` is no name",
        ),
        (
            policy("MPOL_BIND", ""),
            "linux.memoryPolicy.nodes: required by the mode",
        ),
        (
            policy("MPOL_LOCAL", "0"),
            "linux.memoryPolicy.nodes: the mode takes no nodes",
        ),
        (
            policy("MPOL_BIND", "x"),
            "linux.memoryPolicy.nodes: `x` is no list of nodes",
        ),
        (
            linux(
                json!({"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}}),
            ),
            "linux.memoryPolicy.flags: static and relative nodes exclude each other",
        ),
    ]);
}

#[test]
fn network_devices_are_moved_into_a_network_namespace_under_a_legal_name() {
    let devices = |devices: Value| json!({"linux": {"namespaces": namespaces(&["network"]), "netDevices": devices}});
    accepted(&devices(json!({"eth0": {"name": "c0"}, "eth1": {}})));
    refused(&[
        (
            json!({"linux": {"netDevices": {"eth0": {}}}}),
            "linux.netDevices: needs a network namespace",
        ),
        (
            devices(json!({"eth0": {"name": "a/b"}})),
            "linux.netDevices.eth0.name: `a/b` is no network device's name",
        ),
        (
            devices(json!({"0123456789abcdef": {}})),
            "linux.netDevices.0123456789abcdef: `0123456789abcdef` is no network device's name",
        ),
        (
            devices(json!({"eth0": {"name": "eth1"}, "eth1": {}})),
            "linux.netDevices.eth1.name: `eth1` given twice",
        ),
    ]);
}

#[test]
fn resources_name_files_not_paths() {
    let resources = |resources: Value| json!({"linux": {"resources": resources}});
    accepted(&resources(
        json!({"unified": {"memory.high": "1"}, "hugepageLimits": [{"pageSize": "64KB"}]}),
    ));
    refused(&[
        (
            resources(json!({"unified": {"../x/memory.high": "1"}})),
            "linux.resources.unified.../x/memory.high: must be a name CONTROLLER.PARAMETER",
        ),
        (
            resources(json!({"unified": {"memory": "1"}})),
            "linux.resources.unified.memory: must be a name CONTROLLER.PARAMETER",
        ),
        (
            resources(json!({"hugepageLimits": [{"pageSize": "/../2MB"}]})),
            "linux.resources.hugepageLimits[0].pageSize: `/../2MB` is no page size such as 2MB",
        ),
        (
            resources(json!({"devices": [{"access": "rx"}]})),
            "linux.resources.devices[0].access: only the letters r, w, m",
        ),
        (
            resources(json!({"devices": [{"major": -2}]})),
            "linux.resources.devices[0].major: no device number",
        ),
        (
            resources(json!({"memory": {"swappiness": 101}})),
            "linux.resources.memory.swappiness: must be 0 to 100",
        ),
        (
            resources(json!({"memory": {"limit": -2}})),
            "linux.resources.memory.limit: must be -1 or more",
        ),
        (
            resources(json!({"rdma": {"a b": {}}})),
            "linux.resources.rdma.a b: no device name",
        ),
        (
            resources(json!({"network": {"priorities": [{"name": ""}]}})),
            "linux.resources.network.priorities[0].name: no device name",
        ),
    ]);
}

#[test]
fn filters_can_be_loaded_and_do_not_hang_the_start() {
    let seccomp = |action: &str, rule: Value| json!({"linux": {"seccomp": {"defaultAction": action, "syscalls": [rule]}}});
    accepted(&seccomp(
        "SCMP_ACT_ERRNO",
        json!({"names": ["x"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535}),
    ));
    refused(&[
        (
            seccomp("SCMP_ACT_NOTIFY", json!({"action": "SCMP_ACT_ALLOW"})),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"names": ["a", "write"], "action": "SCMP_ACT_NOTIFY"}),
            ),
            "linux.seccomp.syscalls[0].names: `write` cannot have SCMP_ACT_NOTIFY",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"names": ["a"], "action": "SCMP_ACT_NOTIFY"}),
            ),
            "linux.seccomp.listenerPath: required by SCMP_ACT_NOTIFY",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"names": [""], "action": "SCMP_ACT_KILL"}),
            ),
            "linux.seccomp.syscalls[0].names[0]: empty",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 4096}),
            ),
            "linux.seccomp.syscalls[0].errnoRet: 4096 is above 4095",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"action": "SCMP_ACT_KILL", "errnoRet": 1}),
            ),
            "linux.seccomp.syscalls[0].errnoRet: the action takes no number",
        ),
        (
            seccomp(
                "SCMP_ACT_ALLOW",
                json!({"action": "SCMP_ACT_KILL", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].index: must be 0 to 5",
        ),
    ]);
}

#[test]
fn process_and_resources_documents_are_named_for_themselves() {
    let error = validate_process(&Process::default()).unwrap_err();
    assert_eq!(error.to_string(), "process.json: args: required");
    let resources = crate::spec::parse_resources(br#"{"memory":{"limit":-5}}"#).unwrap();
    let error = validate_resources(&resources).unwrap_err();
    assert_eq!(
        error.to_string(),
        "resources: memory.limit: must be -1 or more"
    );
}
