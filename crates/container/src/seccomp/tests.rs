//! Compiled programs, run in the interpreter, against a plain reading of the rules.

use serde_json::{Value, json};

use super::interpreter::{Call, run, verify};
use super::*;
use crate::spec::{SeccompArg, SeccompOperator, SeccompSyscall};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL_PROCESS: u32 = 0x8000_0000;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

fn seccomp(value: Value) -> Seccomp {
    serde_json::from_value(value).unwrap()
}

fn program(seccomp: &Seccomp, native: SeccompArch) -> Vec<Instruction> {
    let program = compile(seccomp, native).unwrap().program;
    verify(&program);
    program
}

#[track_caller]
fn check(profile: &Value, rows: &[(u32, u32, [u64; 2], u32)]) {
    let program = program(&seccomp(profile.clone()), SeccompArch::X86_64);
    for (arch, number, [a, b], wanted) in rows {
        let call = Call {
            number: *number,
            arch: *arch,
            args: [*a, *b, 0, 0, 0, 0],
        };
        let (answer, _) = run(&program, call);
        assert_eq!(answer, *wanted, "{call:x?}: {answer:#x}, not {wanted:#x}");
    }
}

#[test]
fn named_calls_get_their_answer_and_others_the_default() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7},
        ],
    });
    check(
        &profile,
        &[
            (X86_64, 0, [0; 2], ALLOW),
            (X86_64, 1, [0; 2], ALLOW),
            (X86_64, 2, [0; 2], EPERM),
            (X86_64, 317, [0; 2], 0x0005_0007),
        ],
    );
}

#[test]
fn every_action_has_its_answer() {
    for (action, data, wanted) in [
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, KILL_PROCESS),
        ("TRAP", None, 0x0003_0000),
        ("ERRNO", None, EPERM),
        ("ERRNO", Some(0), 0x0005_0000),
        ("ERRNO", Some(4095), 0x0005_0fff),
        ("TRACE", Some(3), 0x7ff0_0003),
        ("TRACE", None, 0x7ff0_0001),
        ("LOG", None, 0x7ffc_0000),
        ("NOTIFY", None, 0x7fc0_0000),
        ("ALLOW", None, ALLOW),
    ] {
        let rule = json!({
            "names": ["read"], "action": format!("SCMP_ACT_{action}"), "errnoRet": data,
        });
        let profile = json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule]});
        check(
            &profile,
            &[
                (X86_64, 0, [0; 2], wanted),
                (X86_64, 1, [0; 2], 0x7ffc_0000),
            ],
        );
    }
}

#[test]
fn calls_newer_than_the_profile_answer_enosys_unless_the_default_lets_them_pass() {
    for (default, wanted) in [
        ("ERRNO", ENOSYS),
        ("KILL", ENOSYS),
        ("KILL_PROCESS", ENOSYS),
        ("TRAP", ENOSYS),
        ("ALLOW", ALLOW),
        ("LOG", 0x7ffc_0000),
        ("TRACE", 0x7ff0_0001),
    ] {
        let profile = json!({
            "defaultAction": format!("SCMP_ACT_{default}"),
            "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}],
        });
        check(
            &profile,
            &[
                (X86_64, 437, [0; 2], ALLOW),
                (X86_64, 438, [0; 2], wanted),
                (X86_64, X32_BIT - 1, [0; 2], wanted),
                (X86_64, u32::MAX, [0; 2], wanted),
            ],
        );
    }
}

#[test]
fn a_profile_without_names_has_its_default_only() {
    let profile = json!({"defaultAction": "SCMP_ACT_KILL"});
    check(
        &profile,
        &[(X86_64, 0, [0; 2], 0), (X86_64, 9999, [0; 2], 0)],
    );
}

#[test]
fn architectures_that_are_not_listed_are_killed() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
    check(
        &profile,
        &[
            (X86_64, 5, [0; 2], ALLOW),
            (I386, 5, [0; 2], KILL_PROCESS),
            (X86_64, X32_BIT | 5, [0; 2], KILL_PROCESS),
            (X86_64, u32::MAX, [0; 2], ALLOW),
            (0, 5, [0; 2], KILL_PROCESS),
        ],
    );
}

#[test]
fn each_listed_architecture_has_its_own_numbers() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_SH"],
        "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}],
    });
    check(
        &profile,
        &[
            (X86_64, 59, [0; 2], ALLOW),
            (X86_64, 11, [0; 2], EPERM),
            (I386, 11, [0; 2], ALLOW),
            (I386, 59, [0; 2], ENOSYS),
            (X86_64, X32_BIT | 520, [0; 2], ALLOW),
            (X86_64, X32_BIT | 59, [0; 2], EPERM),
            (X86_64, X32_BIT | 521, [0; 2], ENOSYS),
        ],
    );
}

#[test]
fn the_32_bit_way_to_sockets_is_the_same_call() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["socket", "shmat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["bind"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        ],
    });
    check(
        &profile,
        &[
            (I386, 359, [0; 2], EPERM),
            (I386, 102, [1, 0], EPERM),
            (I386, 102, [2, 0], ALLOW),
            (I386, 117, [21, 0], EPERM),
            (I386, 117, [0x1_0015, 0], EPERM),
            (I386, 117, [22, 0], ALLOW),
            (X86_64, 102, [1, 0], ALLOW),
        ],
    );
}

#[test]
fn conditions_on_different_arguments_must_all_hold_on_one_argument_any() {
    let rule = |second: u64| {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"},
                {"index": second, "value": 7, "op": "SCMP_CMP_EQ"},
            ]}],
        })
    };
    let rows = |both, first, none| {
        [
            (X86_64, 0, [5, 7], both),
            (X86_64, 0, [5, 0], first),
            (X86_64, 0, [0, 0], none),
        ]
    };
    check(&rule(1), &rows(ALLOW, EPERM, EPERM));
    check(&rule(0), &rows(ALLOW, ALLOW, EPERM));
    check(&rule(0), &[(X86_64, 0, [7, 0], ALLOW)]);
}

#[test]
fn the_first_rule_that_holds_decides() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_KILL",
        "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 0, "value": 0x1000_0000, "valueTwo": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_TRAP"},
        ],
    });
    check(
        &profile,
        &[
            (X86_64, 56, [0x1000_0011, 0], EPERM),
            (X86_64, 56, [0x11, 0], ALLOW),
        ],
    );
}

#[test]
fn flags_are_those_of_the_profile_that_the_kernel_would_take() {
    let flags = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]);
    for (action, listener) in [("SCMP_ACT_NOTIFY", true), ("SCMP_ACT_KILL", false)] {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "flags": flags,
            "syscalls": [{"names": ["read"], "action": action}],
        });
        let wanted = Load {
            log: true,
            spec_allow: true,
            listener,
            wait_killable: listener,
        };
        let filter = compile(&seccomp(profile), SeccompArch::X86_64).unwrap();
        assert_eq!(filter.load, wanted);
    }
}

#[test]
fn a_profile_too_long_for_the_kernel_is_refused_by_name() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args});
    let profile = json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": vec![rule; 2000]});
    let error = compile(&seccomp(profile), SeccompArch::X86_64).unwrap_err();
    assert_eq!(error.field(), "linux.seccomp");
}

#[test]
fn a_profile_of_most_calls_on_three_architectures_is_short_and_quick() {
    let mut names = Vec::new();
    syscalls::each(&["x86_64"], Some, |name, _, _| names.push(name));
    // Every ninth is refused, so ranges stay as short as in real profiles.
    let names: Vec<&str> = names
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % 9 != 0)
        .map(|(_, n)| n)
        .collect();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    });
    let program = program(&seccomp(profile), SeccompArch::X86_64);
    assert!(program.len() < 800, "{} instructions", program.len());
    let steps = |number| {
        run(
            &program,
            Call {
                number,
                arch: X86_64,
                args: [0; 6],
            },
        )
        .1
    };
    let most = (0..500).map(steps).max().unwrap();
    assert!(most <= 14, "{most} steps");
}

/// A small generator (xorshift64*): the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.next() % from.len() as u64).unwrap()]
    }

    /// A value near those at which comparisons of halves turn over.
    fn value(&mut self) -> u64 {
        const CORNERS: [u64; 9] = [
            0,
            1,
            2,
            0x7fff_ffff,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 1,
            5 << 32,
            u64::MAX,
        ];
        self.pick(&CORNERS)
            .wrapping_add(self.next() % 3)
            .wrapping_sub(1)
    }
}

const ARCHES: [SeccompArch; 5] = [
    SeccompArch::X86_64,
    SeccompArch::X86,
    SeccompArch::X32,
    SeccompArch::Aarch64,
    SeccompArch::Arm,
];
const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "socket",
    "socketcall",
    "ipc",
    "semop",
    "clone",
    "mseal",
    "set_tls",
    "execve",
    "nonsense",
];

fn random_rule(numbers: &mut Numbers) -> SeccompSyscall {
    use SeccompOperator as Op;
    let operators = [
        Op::NotEqual,
        Op::Less,
        Op::LessOrEqual,
        Op::Equal,
        Op::GreaterOrEqual,
        Op::Greater,
        Op::MaskedEqual,
    ];
    let actions = [
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::Trap,
        SeccompAction::Trace,
    ];
    let names = (0..=numbers.next() % 3)
        .map(|_| (*numbers.pick(&NAMES)).to_owned())
        .collect();
    let args = (0..numbers.next() % 4)
        .map(|_| SeccompArg {
            index: numbers.next() % 3,
            value: numbers.value(),
            value_two: numbers.value(),
            op: *numbers.pick(&operators),
        })
        .collect();
    let errno_ret = Some(numbers.next() % 5);
    SeccompSyscall {
        names,
        action: *numbers.pick(&actions),
        errno_ret,
        args,
    }
}

fn random_profile(numbers: &mut Numbers) -> Seccomp {
    let rules = numbers.next() % 9;
    Seccomp {
        default_action: *numbers.pick(&[
            SeccompAction::Allow,
            SeccompAction::Errno,
            SeccompAction::KillThread,
        ]),
        default_errno_ret: Some(9),
        architectures: (0..numbers.next() % 4)
            .map(|_| *numbers.pick(&ARCHES))
            .collect(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls: (0..rules).map(|_| random_rule(numbers)).collect(),
    }
}

/// An architecture with all its calls.
struct Known {
    name: SeccompArch,
    arch: super::arch::Arch,
    calls: Vec<(&'static str, u32)>,
}

fn known(name: SeccompArch) -> Known {
    let arch = super::arch::arch(name).unwrap();
    let mut calls = Vec::new();
    syscalls::each(&[arch.column], Some, |name, _, number| {
        calls.push((name, number));
    });
    Known { name, arch, calls }
}

/// The rules read one by one, without ranges, sharing or jumps.
fn plainly(profile: &Seccomp, on: &Known, number: u32, args: [u64; 6]) -> u32 {
    let names: Vec<&str> = on
        .calls
        .iter()
        .filter(|(_, n)| *n == number)
        .map(|(name, _)| *name)
        .collect();
    for rule in &profile.syscalls {
        let direct = rule.names.iter().any(|name| names.contains(&name.as_str()));
        let through = on.arch.multiplexed
            && rule.args.is_empty()
            && rule.names.iter().any(|name| {
                syscalls::multiplexed(name).is_some_and(|(through, inner)| {
                    names.contains(&through) && args[0] & 0xffff == u64::from(inner)
                })
            });
        if through || direct && holds(rule, on.arch.wide, args) {
            return plain_answer(rule.action, rule.errno_ret);
        }
    }
    let refuses = profile.default_action != SeccompAction::Allow;
    let mentioned = |name: &str| mentions(profile, name, on.arch.multiplexed);
    let newest = on
        .calls
        .iter()
        .filter(|(name, n)| *n < 0xf_0000 && mentioned(name))
        .map(|(_, n)| *n)
        .max();
    match newest {
        Some(newest) if refuses && number > newest && !names.iter().any(|n| mentioned(n)) => ENOSYS,
        _ => plain_answer(profile.default_action, profile.default_errno_ret),
    }
}

/// Whether a rule names the call, or one that can be made through it.
fn mentions(profile: &Seccomp, name: &str, multiplexed: bool) -> bool {
    let through = |other: &str| syscalls::multiplexed(other).is_some_and(|(t, _)| t == name);
    profile.syscalls.iter().any(|rule| {
        let through = |other: &str| multiplexed && rule.args.is_empty() && through(other);
        rule.names
            .iter()
            .any(|other| other == name || through(other))
    })
}

fn holds(rule: &SeccompSyscall, wide: bool, args: [u64; 6]) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let one = |arg: &SeccompArg| {
        let (given, value) = (
            cut(args[usize::try_from(arg.index).unwrap()]),
            cut(arg.value),
        );
        match arg.op {
            SeccompOperator::NotEqual => given != value,
            SeccompOperator::Less => given < value,
            SeccompOperator::LessOrEqual => given <= value,
            SeccompOperator::Equal => given == value,
            SeccompOperator::GreaterOrEqual => given >= value,
            SeccompOperator::Greater => given > value,
            SeccompOperator::MaskedEqual => given & value == arg.value_two & value,
        }
    };
    let mut indices: Vec<u64> = rule.args.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    indices.dedup();
    match indices.len() == rule.args.len() {
        true => rule.args.iter().all(one),
        false => rule.args.iter().any(one),
    }
}

fn plain_answer(action: SeccompAction, data: Option<u64>) -> u32 {
    let data = u32::try_from(data.unwrap()).unwrap();
    match action {
        SeccompAction::Allow => ALLOW,
        SeccompAction::Errno => 0x0005_0000 + data,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Trace => 0x7ff0_0000 + data,
        SeccompAction::KillThread => 0,
        other => unreachable!("{other:?} is not generated"),
    }
}

#[test]
fn random_profiles_mean_what_a_plain_reading_says() {
    let mut numbers = Numbers(0x5eed);
    let arches = ARCHES.map(known);
    for _ in 0..400 {
        let profile = random_profile(&mut numbers);
        let native = *numbers.pick(&[SeccompArch::X86_64, SeccompArch::Aarch64]);
        for section in rules::sections(&profile, native) {
            let starts: Vec<u32> = section.ranges.iter().map(|(first, _)| *first).collect();
            assert!(
                starts[0] == 0 && starts.is_sorted_by(|a, b| a < b),
                "{starts:?}"
            );
        }
        let program = program(&profile, native);
        for _ in 0..60 {
            let on = numbers.pick(&arches);
            let mut number = u32::try_from(numbers.next() % 600).unwrap();
            if !numbers.next().is_multiple_of(4) {
                let name = *numbers.pick(&NAMES);
                number = on
                    .calls
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map_or(number, |(_, n)| *n);
            }
            let args = std::array::from_fn(|_| numbers.value());
            // A kernel shows 32 bit programs' arguments without an upper half.
            let args = if on.arch.wide {
                args
            } else {
                args.map(|arg| arg & 0xffff_ffff)
            };
            let call = Call {
                number: number | on.arch.bit,
                arch: on.arch.token,
                args,
            };
            let listed = native == on.name || profile.architectures.contains(&on.name);
            let wanted = if listed {
                plainly(&profile, on, number, args)
            } else {
                KILL_PROCESS
            };
            let (answer, _) = run(&program, call);
            assert_eq!(
                answer, wanted,
                "{:?} {number} {args:x?} under {profile:?}",
                on.name
            );
        }
    }
}
