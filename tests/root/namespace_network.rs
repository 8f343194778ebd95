//! Network namespaces, and `linux.netDevices`: roadmap N6 as far as the runtime goes.

use serde_json::json;
use std::process::Command;
use tests::{Bundle, Container, Outcome};

/// Runs a shell script and then the runtime's `run` in a network namespace of the test's own.
fn in_own_network(container: &Container, script: &str) -> Outcome {
    let runtime = container.command(["run", "--bundle"]);
    let mut command = Command::new("unshare");
    command
        .args(["-n", "sh", "-euc"])
        .arg(format!("{script}\nexec \"$0\" \"$@\""))
        .arg(runtime.get_program())
        .args(runtime.get_args())
        .arg(container.bundle().path())
        .arg(container.id());
    for (name, value) in runtime.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    container.outcome(&mut command)
}

/// Whether this kernel makes such a device.
fn can_make(kind: &str) -> bool {
    let script = format!("ip link add x0 type {kind}");
    let status = Command::new("unshare").args(["-n", "sh", "-c"]).arg(script).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_new_namespace_has_a_loopback_that_is_up() {
    let bundle = Bundle::new().args(["list", "/sys/class/net", "--", "cat", "/sys/class/net/lo/flags"]);
    let printed = Container::new(bundle).run().succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    // IFF_UP is bit 0; some kernels add tunnel devices of their own (sit0).
    assert!(lines.contains(&"lo"), "{printed}");
    let flags = lines.last().and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
    assert_eq!(flags.map(|flags| flags & 1), Some(1), "{printed}");
}

/// A device is moved in under its new name; it keeps its addresses and is up.
#[test]
fn a_device_is_moved_in_with_its_addresses() {
    tests::differs!("runc before 1.4 moves no devices");
    if !can_make("veth") {
        tests::elsewhere!("the kernel makes no veth devices");
    }
    let bundle = Bundle::new()
        .args([
            "list", "/sys/class/net", "--", "cat", "/proc/net/fib_trie", "--", "cat",
            "/proc/net/if_inet6", "--", "cat", "/sys/class/net/eth7/mtu", "--", "cat",
            "/sys/class/net/eth7/flags",
        ])
        .set("/linux/netDevices", json!({"inner0": {"name": "eth7"}, "same0": {}}));
    let container = Container::new(bundle);
    let outcome = in_own_network(
        &container,
        "ip link add inner0 type veth peer name outer0
         ip link add same0 type veth peer name outer1
         ip link set inner0 mtu 1400
         ip addr add 10.99.1.2/24 dev inner0
         ip addr add 10.99.2.2/32 dev inner0 label inner0:x
         ip -6 addr add fd00:99::2/64 dev inner0 nodad
         ip link set inner0 up
         ip link set outer0 up",
    );
    let printed = outcome.succeeds().stdout();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.contains(&"eth7") && lines.contains(&"same0"), "{printed}");
    assert!(!lines.contains(&"inner0"), "{printed}");
    for address in ["10.99.1.2", "10.99.2.2", "fd000099000000000000000000000002"] {
        assert!(printed.contains(address), "{address}: {printed}");
    }
    assert_eq!(lines[lines.len() - 2], "1400");
    let flags = u32::from_str_radix(lines[lines.len() - 1].trim_start_matches("0x"), 16);
    assert_eq!(flags.map(|flags| flags & 1), Ok(1), "{printed}");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    tests::differs!("runc before 1.4 moves no devices");
    let bundle = Bundle::new().set("/linux/netDevices", json!({"none7": {}}));
    let container = Container::new(bundle);
    container.run().exits(1).says("linux.netDevices").says("none7");
}

/// A container without a network namespace of its own must not lose the host its devices.
#[test]
fn devices_need_a_namespace_to_move_to() {
    tests::differs!("runc before 1.4 moves no devices");
    let bundle = Bundle::new()
        .without_namespace("network")
        .set("/linux/netDevices", json!({"lo": {}}));
    Container::new(bundle).run().fails();
    assert!(sys::netlink::index_of("lo").is_ok());
}

/// One that joins a namespace gets its devices into that.
#[test]
fn a_joined_network_is_the_others() {
    let first = Container::new(Bundle::new().args(["sleep", "1000"]));
    first.create().succeeds();
    first.start().succeeds();
    let path = format!("/proc/{}/ns/net", first.pid());
    let second = Bundle::new()
        .args(["readlink", "/proc/self/ns/net"])
        .without_namespace("network")
        .push("/linux/namespaces", json!({"type": "network", "path": path}));
    let link = std::fs::read_link(&path).expect("a namespace");
    Container::new(second).run().succeeds().prints(&format!("{}\n", link.display()));
}
