//! The program that searches a policy's tables, for the hooks of `struct bpf_sock_addr`.
//!
//! A helper call loses R1 to R5, so the context stays in R6. Keys lie on the stack, at multiples
//! of four, which the verifier insists on; so the protocol takes four bytes of the address's key.

use super::tables::{Found, Tables};
use super::{Hook, Protocol};
use crate::assembler::Operation::{Add, Set};
use crate::assembler::{Assembler, Condition, Register};

/// A policy's maps, as `(key, value)` pairs for the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    /// Length, protocol, address → table.
    pub(crate) addresses: Vec<([u8; ADDRESS_KEY], [u8; 4])>,
    /// Length, table, port → verdict or table.
    pub(crate) ports: Vec<([u8; PORT_KEY], [u8; 4])>,
}

/// struct bpf_lpm_trie_key: the number of bits that count, then the bits.
pub(crate) const ADDRESS_KEY: usize = 4 + 4 + 16;
pub(crate) const PORT_KEY: usize = 4 + 4 + 2;

/// Marks a value of the ports' map that is a verdict, in its lowest bit.
const IS_VERDICT: u32 = 1 << 31;

impl Maps {
    pub(crate) fn of(tables: &Tables) -> Self {
        let mut maps = Self::default();
        for ((protocol, prefix), table) in &tables.addresses {
            let mut key = [0; ADDRESS_KEY];
            put(&mut key, 0, &(32 + prefix.length).to_ne_bytes());
            put(&mut key, 4, &class(*protocol).to_ne_bytes());
            put(&mut key, 8, &prefix.bits.to_be_bytes());
            maps.addresses.push((key, table.to_ne_bytes()));
        }
        for ((table, port, length), found) in &tables.ports {
            let mut key = [0; PORT_KEY];
            put(&mut key, 0, &(32 + length).to_ne_bytes());
            put(&mut key, 4, &table.to_ne_bytes());
            put(&mut key, 8, &port.to_be_bytes());
            let value = match found {
                Found::Verdict(allow) => IS_VERDICT | u32::from(*allow),
                Found::Local(table) => *table,
            };
            maps.ports.push((key, value.to_ne_bytes()));
        }
        maps
    }
}

fn put(key: &mut [u8], at: usize, bytes: &[u8]) {
    for (slot, byte) in key.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}

/// The kernel's number of a protocol; 0 stands for all others.
fn class(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Other => 0,
    }
}

const CONTEXT: Register = Register::R6;
const STACK: Register = Register::R10;
const RESULT: Register = Register::R0;
const SCRATCH: Register = Register::R1;

/// Offsets in struct bpf_sock_addr.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;
const PROTOCOL: i16 = 36;
const SOCKET: i16 = 64;
/// In struct bpf_sock, in the host's order.
const SOURCE_PORT: i16 = 44;

/// Where the keys lie on the stack.
const ADDRESS_AT: i16 = -24;
const PORT_AT: i16 = -40;

const LOOK_UP: i32 = 1;

/// The program of a hook for sockets of one family. The maps are given by their descriptors'
/// numbers.
pub(crate) fn assemble(hook: Hook, v6: bool, allow: bool, maps: [i32; 2]) -> Vec<u64> {
    let [addresses, ports] = maps;
    let mut code = Assembler::default();
    code.with(CONTEXT, Set, Register::R1);
    address_key(&mut code, v6);
    look_up(&mut code, addresses, ADDRESS_AT);
    let default = code.jump(Condition::Equal, RESULT, 0);
    port_key(&mut code);
    code.load_u32(SCRATCH, CONTEXT, USER_PORT);
    code.store_u16(STACK, PORT_AT + 8, SCRATCH);
    look_up(&mut code, ports, PORT_AT);
    let mut defaults = vec![default, code.jump(Condition::Equal, RESULT, 0)];
    code.load_u32(SCRATCH, RESULT, 0);
    let mut verdicts = vec![code.jump(Condition::HasBits, SCRATCH, IS_VERDICT as i32)];
    // Who binds has no local port but the one that was just looked up.
    if hook == Hook::Connect {
        code.store_u32(STACK, PORT_AT + 4, SCRATCH);
        code.load_u64(SCRATCH, CONTEXT, SOCKET);
        code.load_u32(SCRATCH, SCRATCH, SOURCE_PORT);
        code.big_endian_16(SCRATCH);
        code.store_u16(STACK, PORT_AT + 8, SCRATCH);
        look_up(&mut code, ports, PORT_AT);
        defaults.push(code.jump(Condition::Equal, RESULT, 0));
        code.load_u32(SCRATCH, RESULT, 0);
        verdicts.push(code.jump(Condition::HasBits, SCRATCH, IS_VERDICT as i32));
    }
    defaults.iter().for_each(|label| code.land(label));
    code.with_value(RESULT, Set, i32::from(allow));
    code.end();
    verdicts.iter().for_each(|label| code.land(label));
    code.with(RESULT, Set, SCRATCH);
    code.with_value(RESULT, crate::assembler::Operation::And, 1);
    code.exit()
}

/// All bits of protocol and address count.
fn address_key(code: &mut Assembler, v6: bool) {
    code.with_value(SCRATCH, Set, 32 + 128);
    code.store_u32(STACK, ADDRESS_AT, SCRATCH);
    code.load_u32(SCRATCH, CONTEXT, PROTOCOL);
    let known = [
        code.jump(Condition::Equal, SCRATCH, class(Protocol::Tcp) as i32),
        code.jump(Condition::Equal, SCRATCH, class(Protocol::Udp) as i32),
    ];
    code.with_value(SCRATCH, Set, 0);
    known.iter().for_each(|label| code.land(label));
    code.store_u32(STACK, ADDRESS_AT + 4, SCRATCH);
    // Addresses are in network order there and in the key.
    for word in 0..4 {
        match (v6, word) {
            (true, word) => code.load_u32(SCRATCH, CONTEXT, USER_IP6 + 4 * word),
            (false, 0 | 1) => code.with_value(SCRATCH, Set, 0),
            (false, 2) => {
                let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
                code.load_constant(SCRATCH, u64::from(mapped));
            }
            (false, _) => code.load_u32(SCRATCH, CONTEXT, USER_IP4),
        }
        code.store_u32(STACK, ADDRESS_AT + 8 + 4 * word, SCRATCH);
    }
}

/// The key of a port in the table that was found; the port itself is still missing.
fn port_key(code: &mut Assembler) {
    code.load_u32(SCRATCH, RESULT, 0);
    code.store_u32(STACK, PORT_AT + 4, SCRATCH);
    code.with_value(SCRATCH, Set, 32 + 16);
    code.store_u32(STACK, PORT_AT, SCRATCH);
}

/// Leaves the value's address in R0, or 0.
fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.load_map(Register::R1, map);
    code.with(Register::R2, Set, STACK);
    code.with_value(Register::R2, Add, i32::from(key));
    code.call(LOOK_UP);
}

/// What the kernel finds for a key: the entry with the most bits among those that fit.
#[cfg(test)]
pub(super) fn longest<'a, const N: usize>(
    map: &'a [([u8; N], [u8; 4])],
    key: &[u8],
) -> Option<&'a [u8; 4]> {
    let length = |key: &[u8]| u32::from_ne_bytes([key[0], key[1], key[2], key[3]]);
    let fits = |entry: &[u8; N]| {
        (0..length(entry)).all(|bit| {
            let (byte, shift) = (4 + bit as usize / 8, 7 - bit % 8);
            entry[byte] >> shift & 1 == key[byte] >> shift & 1
        })
    };
    let fitting = map.iter().filter(|(entry, _)| fits(entry));
    fitting
        .max_by_key(|(entry, _)| length(entry))
        .map(|(_, value)| value)
}
