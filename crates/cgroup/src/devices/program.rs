//! Device rules as a BPF program, which is v2's way to have them.

use crate::assembler::{Assembler, Register, Test};
use crate::devices::{DeviceKind, DeviceRule};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// The program of a rule list, for the hook `BPF_CGROUP_DEVICE`.
///
/// For each kind of access on its own the last rule that fits decides: an open for reading and
/// writing passes when one rule allows reading and another writing. The rules are tried from the
/// last to the first; what is allowed is struck off the request, and a request with nothing left
/// passes. What no rule decides is allowed.
pub(crate) fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    use Register::{R1, R2, R3, R4, R5};
    let mut code = Assembler::default();
    // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, where access_type is
    // the access in the upper and the kind in the lower half.
    code.load_u32(R2, R1, 0);
    code.copy(R3, R2);
    code.and(R3, 0xffff);
    code.shift_right(R2, 16);
    code.load_u32(R4, R1, 4);
    code.load_u32(R5, R1, 8);
    for rule in rules.iter().rev() {
        if rule.is_total() {
            // None before it counts, and the verifier refuses code that is never reached.
            code.exit_with(if rule.allow { ALLOW } else { DENY });
            return code.finish();
        }
        add_rule(&mut code, rule);
    }
    code.exit_with(ALLOW);
    code.finish()
}

fn add_rule(code: &mut Assembler, rule: &DeviceRule) {
    let next = code.new_label();
    // The kernel's kinds: 1 block, 2 character. Its numbers have 12 and 20 bits, so a rule with
    // one beyond the operand's range fits no device.
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Char => Some(2),
    };
    let (Ok(major), Ok(minor)) = (operand(rule.major), operand(rule.minor)) else {
        return;
    };
    let fields = [
        (Register::R3, kind),
        (Register::R4, major),
        (Register::R5, minor),
    ];
    for (register, value) in fields {
        if let Some(value) = value {
            code.jump_if(register, Test::Differs, value, next);
        }
    }
    let access = i32::from(rule.access.bits());
    if rule.allow {
        code.and(Register::R2, !access);
        code.jump_if(Register::R2, Test::Differs, 0, next);
        code.exit_with(ALLOW);
    } else {
        let denied = code.new_label();
        code.jump_if(Register::R2, Test::Intersects, access, denied);
        code.jump(next);
        code.label(denied);
        code.exit_with(DENY);
    }
    // A rule is ten instructions: the distance always fits.
    code.label(next);
}

fn operand(number: Option<u32>) -> Result<Option<i32>, std::num::TryFromIntError> {
    number.map(i32::try_from).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::tests::rule;

    fn passes(rules: &[&str], request: &str) -> bool {
        let rules: Vec<DeviceRule> = rules.iter().map(|text| rule(text)).collect();
        let code: Vec<u8> = assemble(&rules)
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let request = rule(&format!("allow {request}"));
        let kind = if request.kind == DeviceKind::Block {
            1
        } else {
            2
        };
        let words = [
            u32::from(request.access.bits()) << 16 | kind,
            request.major.unwrap(),
            request.minor.unwrap(),
        ];
        let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let vm = rbpf::EbpfVmRaw::new(Some(&code)).unwrap();
        vm.execute_program(&mut context).unwrap() == 1
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let container: &[&str] = &[
            "deny a *:* rwm",
            "allow c *:* m",
            "allow c 1:3 rwm",
            "allow b 8:* r",
        ];
        // (rules, request, passes)
        let rows: [(&[&str], &str, bool); 22] = [
            (&[], "c 1:1 rwm", true),
            (container, "c 1:3 rw", true),
            (container, "c 1:3 rwm", true),
            (container, "c 1:1 r", false),
            (container, "c 1:1 m", true),
            (container, "b 1:1 m", false),
            (container, "b 8:7 r", true),
            (container, "b 8:7 w", false),
            (container, "b 8:7 rw", false),
            (container, "b 9:7 r", false),
            (&["allow c 1:3 rwm", "deny a *:* rwm"], "c 1:3 r", false),
            (&["deny a *:* rwm", "allow a *:* rwm"], "b 1:3 m", true),
            // Each kind of access for itself.
            (
                &["deny a *:* rwm", "allow c 1:3 r", "allow c 1:3 w"],
                "c 1:3 rw",
                true,
            ),
            (
                &["deny a *:* rwm", "allow c 1:3 r", "allow c 1:3 w"],
                "c 1:3 rm",
                false,
            ),
            (
                &["deny a *:* rwm", "allow c 1:3 rwm", "deny c 1:3 m"],
                "c 1:3 rw",
                true,
            ),
            (
                &["deny a *:* rwm", "allow c 1:3 rwm", "deny c 1:3 m"],
                "c 1:3 wm",
                false,
            ),
            // A hole in a wildcard, which v1 cannot have.
            (
                &["deny a *:* rwm", "allow c *:* m", "deny c 1:3 m"],
                "c 1:3 m",
                false,
            ),
            (
                &["deny a *:* rwm", "allow c *:* m", "deny c 1:3 m"],
                "c 1:4 m",
                true,
            ),
            (&["deny b *:3 rwm"], "b 7:3 r", false),
            (&["deny b *:3 rwm"], "c 7:3 r", true),
            (&["deny a *:* m"], "c 7:3 rm", false),
            (&["deny c 4294967295:* rwm"], "c 4095:3 rm", true),
        ];
        for (rules, request, expected) in rows {
            assert_eq!(passes(rules, request), expected, "{rules:?} {request}");
        }
    }

    #[test]
    fn no_instruction_is_out_of_reach() {
        let rules = [
            "deny a *:* rwm",
            "allow c 1:3 rwm",
            "allow a *:* rwm",
            "allow c 5:1 r",
        ];
        let rules: Vec<DeviceRule> = rules.iter().map(|text| rule(text)).collect();
        // Six to begin, six for the last rule, two for the total one before it.
        assert_eq!(assemble(&rules).len(), 6 + 7 + 2);
    }
}
