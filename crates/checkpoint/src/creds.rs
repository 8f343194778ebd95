//! Users, groups, capabilities and securebits of a thread.

use crate::image::core::CredsEntry;
use crate::procfs::Lines;
use crate::tape::Tape;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECBIT_NO_SETUID_FIXUP: u64 = 1 << 2;
const LAST_CAPABILITY: u32 = 63;
const PR_CAP_AMBIENT_RAISE: u64 = 2;

/// What `/proc/PID/task/TID/status` says, with the securebits that it does not.
pub(crate) fn dump(status: &Lines, secbits: u32) -> CredsEntry {
    let four = |key: &str| {
        let ids = status.numbers(key);
        [0, 1, 2, 3].map(|at| ids.get(at).copied().unwrap_or(0))
    };
    let [uid, euid, suid, fsuid] = four("Uid");
    let [gid, egid, sgid, fsgid] = four("Gid");
    let halves = |key: &str| {
        let bits = status.hex(key);
        vec![bits as u32, (bits >> 32) as u32]
    };
    CredsEntry {
        uid,
        gid,
        euid,
        egid,
        suid,
        sgid,
        fsuid,
        fsgid,
        cap_inh: halves("CapInh"),
        cap_prm: halves("CapPrm"),
        cap_eff: halves("CapEff"),
        cap_bnd: halves("CapBnd"),
        cap_amb: halves("CapAmb"),
        secbits,
        groups: status.numbers("Groups"),
        no_new_privs: Some(status.number("NoNewPrivs") as u32).filter(|set| *set != 0),
        ..CredsEntry::default()
    }
}

fn bits(halves: &[u32]) -> u64 {
    let half = |at: usize| u64::from(halves.get(at).copied().unwrap_or(0));
    half(0) | half(1) << 32
}

/// The calls that give a thread its credentials. `bounding` is what it has now.
pub(crate) fn restore(creds: &CredsEntry, bounding: u64, tape: &mut Tape) {
    let groups: Vec<u8> = creds
        .groups
        .iter()
        .flat_map(|group| group.to_le_bytes())
        .collect();
    let count = creds.groups.len() as u64;
    let groups = tape.data(&groups);
    tape.call("set", "groups", libc::SYS_setgroups, &[count, groups]);
    // Keep capabilities while the ids change.
    let prctl = |tape: &mut Tape, what, option: i32, arguments: [u64; 4]| {
        let [a, b, c, d] = arguments;
        tape.call("set", what, libc::SYS_prctl, &[option as u64, a, b, c, d]);
    };
    prctl(
        tape,
        "securebits",
        libc::PR_SET_SECUREBITS,
        [SECBIT_NO_SETUID_FIXUP, 0, 0, 0],
    );
    let [rgid, egid, sgid] = [creds.gid, creds.egid, creds.sgid].map(u64::from);
    tape.call("set", "group ids", libc::SYS_setresgid, &[rgid, egid, sgid]);
    tape.attempt(libc::SYS_setfsgid, &[u64::from(creds.fsgid)]);
    let [ruid, euid, suid] = [creds.uid, creds.euid, creds.suid].map(u64::from);
    tape.call("set", "user ids", libc::SYS_setresuid, &[ruid, euid, suid]);
    tape.attempt(libc::SYS_setfsuid, &[u64::from(creds.fsuid)]);
    let kept = bits(&creds.cap_bnd);
    for capability in (0..=LAST_CAPABILITY).filter(|n| bounding & !kept & (1 << n) != 0) {
        prctl(
            tape,
            "bounding set",
            libc::PR_CAPBSET_DROP,
            [u64::from(capability), 0, 0, 0],
        );
    }
    prctl(
        tape,
        "securebits",
        libc::PR_SET_SECUREBITS,
        [u64::from(creds.secbits), 0, 0, 0],
    );
    let mut sets = Vec::new();
    for half in 0..2 {
        for set in [&creds.cap_eff, &creds.cap_prm, &creds.cap_inh] {
            let word = set.get(half).copied().unwrap_or(0);
            sets.extend_from_slice(&word.to_le_bytes());
        }
    }
    let header: Vec<u8> = [CAPABILITY_VERSION_3, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let (header, sets) = (tape.data(&header), tape.data(&sets));
    tape.call("set", "capabilities", libc::SYS_capset, &[header, sets]);
    for capability in (0..=LAST_CAPABILITY).filter(|n| bits(&creds.cap_amb) & (1 << n) != 0) {
        let arguments = [PR_CAP_AMBIENT_RAISE, u64::from(capability), 0, 0];
        prctl(tape, "ambient set", libc::PR_CAP_AMBIENT, arguments);
    }
    if creds.no_new_privs.unwrap_or(0) != 0 {
        prctl(
            tape,
            "no_new_privs",
            libc::PR_SET_NO_NEW_PRIVS,
            [1, 0, 0, 0],
        );
    }
}
