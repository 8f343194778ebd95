//! The programs that search a policy's tables: for the hooks of `struct bpf_sock_addr`, and for
//! packets that come in.
//!
//! A helper call loses R1 to R5, so the context stays in R6. Keys lie on the stack, at multiples
//! of four, which the verifier insists on; so the protocol takes four bytes of the address's key.

use super::tables::{Found, Tables};
use super::{Hook, Protocol};
use crate::assembler::Operation::{Add, And, Set, ShiftLeft};
use crate::assembler::{Assembler, Condition, Label, Register};

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
const LOAD_BYTES: i32 = 26;
const FULL_SOCKET: i32 = 95;

/// Offsets in struct __sk_buff.
const ETHERTYPE: i16 = 16;
const BUFFERS_SOCKET: i16 = 168;
/// More of struct bpf_sock.
const SOCKETS_PROTOCOL: i16 = 12;
const STATE: i16 = 72;
const LISTENS: i32 = 10;

/// Keep their values over calls.
const LISTENER: Register = Register::R7;
const SEGMENT: Register = Register::R8;

/// The program of a hook for sockets of one family. The maps are given by their descriptors'
/// numbers.
pub(crate) fn assemble(hook: Hook, v6: bool, allow: bool, maps: [i32; 2]) -> Vec<u64> {
    if hook == Hook::Accept {
        return assemble_accept(allow, maps);
    }
    let mut code = Assembler::default();
    code.with(CONTEXT, Set, Register::R1);
    begin_address_key(&mut code);
    code.load_u32(SCRATCH, CONTEXT, PROTOCOL);
    protocol_key(&mut code);
    // Addresses are in network order there and in the key.
    if v6 {
        for word in 0..4 {
            code.load_u32(SCRATCH, CONTEXT, USER_IP6 + 4 * word);
            code.store_u32(STACK, ADDRESS_AT + 8 + 4 * word, SCRATCH);
        }
    } else {
        mapped_address_key(&mut code);
        code.load_u32(SCRATCH, CONTEXT, USER_IP4);
        code.store_u32(STACK, ADDRESS_AT + 20, SCRATCH);
    }
    look_up(&mut code, maps[0], ADDRESS_AT);
    let mut unknown = vec![code.jump(Condition::Equal, RESULT, 0)];
    port_key(&mut code);
    code.load_u32(SCRATCH, CONTEXT, USER_PORT);
    code.store_u16(STACK, PORT_AT + 8, SCRATCH);
    let mut decided = search_port(&mut code, maps[1], &mut unknown);
    // Who binds has no local port but the one that was just looked up.
    if hook == Hook::Connect {
        code.load_u64(LISTENER, CONTEXT, SOCKET);
        decided.extend(search_local_port(&mut code, maps[1], &mut unknown));
    }
    verdicts(code, allow, &unknown, &decided)
}

/// The program for packets that come in: those for a socket that listens are judged, all others
/// pass. Whoever owns the network namespace cannot take it off, as nftables' rules.
///
/// Attack: a peer puts extension headers before the TCP header, so that the port is not where it
/// usually is. Such a packet for a listening socket is refused.
fn assemble_accept(allow: bool, maps: [i32; 2]) -> Vec<u64> {
    let mut code = Assembler::default();
    code.with(CONTEXT, Set, Register::R1);
    code.load_u64(Register::R1, CONTEXT, BUFFERS_SOCKET);
    let mut passing = vec![code.jump(Condition::Equal, Register::R1, 0)];
    code.call(FULL_SOCKET);
    passing.push(code.jump(Condition::Equal, RESULT, 0));
    code.with(LISTENER, Set, RESULT);
    code.load_u32(SCRATCH, LISTENER, STATE);
    passing.push(code.jump(Condition::NotEqual, SCRATCH, LISTENS));
    begin_address_key(&mut code);
    code.load_u32(SCRATCH, LISTENER, SOCKETS_PROTOCOL);
    protocol_key(&mut code);
    code.load_u32(SCRATCH, CONTEXT, ETHERTYPE);
    let is_v4 = code.jump(Condition::Equal, SCRATCH, ethertype(0x0800));
    passing.push(code.jump(Condition::NotEqual, SCRATCH, ethertype(0x86dd)));
    // v6: the source, and TCP has to come at once.
    let mut wrong = vec![load_bytes(&mut code, 8, ADDRESS_AT + 8, 16)];
    wrong.push(load_bytes(&mut code, 6, PORT_AT + 8, 1));
    code.load_u8(SCRATCH, STACK, PORT_AT + 8);
    wrong.push(code.jump(Condition::NotEqual, SCRATCH, 6));
    code.with_value(SEGMENT, Set, 40);
    let ports = code.jump(Condition::Always, RESULT, 0);
    // v4: the length of the header is in four-byte words.
    code.land(&is_v4);
    mapped_address_key(&mut code);
    wrong.push(load_bytes(&mut code, 12, ADDRESS_AT + 20, 4));
    wrong.push(load_bytes(&mut code, 0, PORT_AT + 8, 1));
    code.load_u8(SEGMENT, STACK, PORT_AT + 8);
    code.with_value(SEGMENT, And, 15);
    code.with_value(SEGMENT, ShiftLeft, 2);
    code.land(&ports);
    look_up(&mut code, maps[0], ADDRESS_AT);
    let mut unknown = vec![code.jump(Condition::Equal, RESULT, 0)];
    port_key(&mut code);
    code.with(Register::R2, Set, SEGMENT);
    wrong.push(load_bytes_there(&mut code, PORT_AT + 8, 2));
    let mut decided = search_port(&mut code, maps[1], &mut unknown);
    decided.extend(search_local_port(&mut code, maps[1], &mut unknown));
    passing.iter().for_each(|label| code.land(label));
    code.with_value(RESULT, Set, 1);
    code.end();
    wrong.iter().for_each(|label| code.land(label));
    code.with_value(RESULT, Set, 0);
    code.end();
    verdicts(code, allow, &unknown, &decided)
}

/// The ends: what is not found is the default, what is found is in the lowest bit.
fn verdicts(mut code: Assembler, allow: bool, unknown: &[Label], decided: &[Label]) -> Vec<u64> {
    unknown.iter().for_each(|label| code.land(label));
    code.with_value(RESULT, Set, i32::from(allow));
    code.end();
    decided.iter().for_each(|label| code.land(label));
    code.with(RESULT, Set, SCRATCH);
    code.with_value(RESULT, And, 1);
    code.exit()
}

/// All bits of protocol and address count.
fn begin_address_key(code: &mut Assembler) {
    code.with_value(SCRATCH, Set, 32 + 128);
    code.store_u32(STACK, ADDRESS_AT, SCRATCH);
}

/// The protocol in the scratch register, if it is one with rules of its own.
fn protocol_key(code: &mut Assembler) {
    let known = [
        code.jump(Condition::Equal, SCRATCH, class(Protocol::Tcp) as i32),
        code.jump(Condition::Equal, SCRATCH, class(Protocol::Udp) as i32),
    ];
    code.with_value(SCRATCH, Set, 0);
    known.iter().for_each(|label| code.land(label));
    code.store_u32(STACK, ADDRESS_AT + 4, SCRATCH);
}

/// The first twelve bytes of a v4 address that is written as a v6 one.
fn mapped_address_key(code: &mut Assembler) {
    code.with_value(SCRATCH, Set, 0);
    code.store_u32(STACK, ADDRESS_AT + 8, SCRATCH);
    code.store_u32(STACK, ADDRESS_AT + 12, SCRATCH);
    let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    code.load_constant(SCRATCH, u64::from(mapped));
    code.store_u32(STACK, ADDRESS_AT + 16, SCRATCH);
}

/// The key of a port in the table that was found; the port itself is still missing.
fn port_key(code: &mut Assembler) {
    code.load_u32(SCRATCH, RESULT, 0);
    code.store_u32(STACK, PORT_AT + 4, SCRATCH);
    code.with_value(SCRATCH, Set, 32 + 16);
    code.store_u32(STACK, PORT_AT, SCRATCH);
}

/// Jumps away with the verdict, or goes on with the table of local ports in the scratch register.
fn search_port(code: &mut Assembler, map: i32, unknown: &mut Vec<Label>) -> Vec<Label> {
    look_up(code, map, PORT_AT);
    unknown.push(code.jump(Condition::Equal, RESULT, 0));
    code.load_u32(SCRATCH, RESULT, 0);
    vec![code.jump(Condition::HasBits, SCRATCH, IS_VERDICT as i32)]
}

/// The same in the table that was found, with the port of the socket in [`LISTENER`].
fn search_local_port(code: &mut Assembler, map: i32, unknown: &mut Vec<Label>) -> Vec<Label> {
    code.store_u32(STACK, PORT_AT + 4, SCRATCH);
    code.load_u32(SCRATCH, LISTENER, SOURCE_PORT);
    code.big_endian_16(SCRATCH);
    code.store_u16(STACK, PORT_AT + 8, SCRATCH);
    let decided = search_port(code, map, unknown);
    // A table of local ports leads to no other table.
    unknown.push(code.jump(Condition::Always, RESULT, 0));
    decided
}

/// Leaves the value's address in R0, or 0.
fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.load_map(Register::R1, map);
    code.with(Register::R2, Set, STACK);
    code.with_value(Register::R2, Add, i32::from(key));
    code.call(LOOK_UP);
}

/// Copies bytes of the packet to the stack; jumps away if it has not so many.
fn load_bytes(code: &mut Assembler, from: i32, to: i16, count: i32) -> Label {
    code.with_value(Register::R2, Set, from);
    load_bytes_there(code, to, count)
}

/// The same, from where R2 says.
fn load_bytes_there(code: &mut Assembler, to: i16, count: i32) -> Label {
    code.with(Register::R1, Set, CONTEXT);
    code.with(Register::R3, Set, STACK);
    code.with_value(Register::R3, Add, i32::from(to));
    code.with_value(Register::R4, Set, count);
    code.call(LOAD_BYTES);
    code.jump(Condition::NotEqual, RESULT, 0)
}

/// In network order, as a packet has it.
fn ethertype(number: u16) -> i32 {
    i32::from(number.to_be())
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
