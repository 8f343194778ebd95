//! Sockets below the level of addresses and options with names: what a checkpoint copies without
//! knowing its meaning. Addresses are the bytes of a `sockaddr`.
//!
//! SAFETY, once for the module: every pointer is that of a borrowed buffer and every length its own.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result};

const ADDRESS_SIZE: usize = 128;
const CONTROL_SIZE: usize = 2048;
const NETLINK_SOCK_DIAG: i32 = 4;

fn check(result: isize) -> Result<usize> {
    usize::try_from(result)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

fn own(fd: i32) -> Result<OwnedFd> {
    check(fd as isize)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// socket(2), close-on-exec.
///
/// # Errors
/// EAFNOSUPPORT, EPROTONOSUPPORT: this kernel has no such sockets. EPERM: they need a capability.
pub fn create(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    own(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// socketpair(2), close-on-exec.
///
/// # Errors
/// EOPNOTSUPP: no such pairs.
pub fn pair(domain: i32, kind: i32, protocol: i32) -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: module header.
    check(unsafe {
        libc::socketpair(
            domain,
            kind | libc::SOCK_CLOEXEC,
            protocol,
            fds.as_mut_ptr(),
        )
    } as isize)?;
    Ok((own(fds[0])?, own(fds[1])?))
}

/// bind(2).
///
/// # Errors
/// EADDRINUSE, EADDRNOTAVAIL, EINVAL as bind(2) says.
pub fn bind(socket: impl AsFd, address: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    check(unsafe { libc::bind(fd, address.as_ptr().cast(), address.len() as u32) } as isize)
        .map(drop)
}

/// connect(2).
///
/// # Errors
/// ECONNREFUSED, EINPROGRESS and others as connect(2) says.
pub fn connect(socket: impl AsFd, address: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    check(unsafe { libc::connect(fd, address.as_ptr().cast(), address.len() as u32) } as isize)
        .map(drop)
}

/// listen(2).
///
/// # Errors
/// EADDRINUSE, EOPNOTSUPP.
pub fn listen(socket: impl AsFd, backlog: i32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) } as isize).map(drop)
}

/// accept4(2), close-on-exec.
///
/// # Errors
/// EAGAIN: nobody waits.
pub fn accept(socket: impl AsFd) -> Result<OwnedFd> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: no address is asked for.
    own(unsafe {
        libc::accept4(
            fd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })
}

/// shutdown(2): `SHUT_RD`, `SHUT_WR` or `SHUT_RDWR`.
///
/// # Errors
/// ENOTCONN.
pub fn shutdown(socket: impl AsFd, how: i32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), how) } as isize).map(drop)
}

/// getsockname(2).
///
/// # Errors
/// ENOTSOCK.
pub fn local_address(socket: impl AsFd) -> Result<Vec<u8>> {
    let (mut address, mut length) = (vec![0; ADDRESS_SIZE], ADDRESS_SIZE as u32);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    check(unsafe { libc::getsockname(fd, address.as_mut_ptr().cast(), &raw mut length) } as isize)?;
    address.truncate(length as usize);
    Ok(address)
}

/// getpeername(2).
///
/// # Errors
/// ENOTCONN.
pub fn peer_address(socket: impl AsFd) -> Result<Vec<u8>> {
    let (mut address, mut length) = (vec![0; ADDRESS_SIZE], ADDRESS_SIZE as u32);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    check(unsafe { libc::getpeername(fd, address.as_mut_ptr().cast(), &raw mut length) } as isize)?;
    address.truncate(length as usize);
    Ok(address)
}

/// getsockopt(2) into `buffer`; returns the length that the kernel filled.
///
/// # Errors
/// ENOPROTOOPT: no such option.
pub fn option(socket: impl AsFd, level: i32, name: i32, buffer: &mut [u8]) -> Result<usize> {
    let mut length = buffer.len() as u32;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    let result =
        unsafe { libc::getsockopt(fd, level, name, buffer.as_mut_ptr().cast(), &raw mut length) };
    check(result as isize)?;
    Ok(length as usize)
}

/// getsockopt(2) of an option whose length counts items of `size` bytes: `SO_GET_FILTER`.
///
/// # Errors
/// EINVAL: the buffer is too small.
pub fn option_of_items(
    socket: impl AsFd,
    level: i32,
    name: i32,
    buffer: &mut [u8],
    size: usize,
) -> Result<usize> {
    let mut count = (buffer.len() / size) as u32;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `count` items of `size` bytes.
    let result =
        unsafe { libc::getsockopt(fd, level, name, buffer.as_mut_ptr().cast(), &raw mut count) };
    check(result as isize)?;
    Ok(count as usize)
}

/// Attaches a classic BPF program of 8-byte instructions.
///
/// # Errors
/// EINVAL: the kernel's checker refuses it.
pub fn attach_filter(socket: impl AsFd, program: &[u8]) -> Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u8,
    }
    let program = Program {
        length: (program.len() / 8) as u16,
        instructions: program.as_ptr(),
    };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `program` has the layout of `struct sock_fprog` and points at borrowed instructions.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<Program>() as u32,
        )
    };
    check(result as isize).map(drop)
}

/// An option that is an `int`.
///
/// # Errors
/// ENOPROTOOPT: no such option.
pub fn int_option(socket: impl AsFd, level: i32, name: i32) -> Result<i32> {
    let mut bytes = [0; 4];
    option(socket, level, name, &mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// setsockopt(2).
///
/// # Errors
/// ENOPROTOOPT, EINVAL, EPERM.
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header.
    let result =
        unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) };
    check(result as isize).map(drop)
}

/// Sets an option that is an `int`.
///
/// # Errors
/// ENOPROTOOPT, EINVAL, EPERM.
pub fn set_int_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> Result<()> {
    set_option(socket, level, name, &value.to_ne_bytes())
}

/// An ioctl(2) that answers with an `int`, such as `SIOCOUTQ`.
///
/// # Errors
/// ENOTTY, EINVAL.
pub fn int_request(socket: impl AsFd, request: libc::c_ulong) -> Result<i32> {
    let mut value = 0;
    // SAFETY: the callers' requests write one int.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut value) } as isize)?;
    Ok(value)
}

/// The file that a unix socket's name is, opened with O_PATH: ioctl(SIOCUNIXFILE), since Linux 4.20.
///
/// # Errors
/// ENOENT: it has no such name.
pub fn unix_file(socket: impl AsFd) -> Result<OwnedFd> {
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: this request takes no argument.
    own(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE, 0) })
}

/// What [`receive`] got.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes in the buffer.
    pub length: usize,
    /// Descriptors that travelled along (SCM_RIGHTS).
    pub rights: Vec<OwnedFd>,
    /// The sender's address, where the socket tells.
    pub address: Vec<u8>,
    /// The message was longer than the buffer.
    pub truncated: bool,
}

/// recvmsg(2) with `flags` (`MSG_PEEK`, `MSG_DONTWAIT`).
///
/// # Errors
/// EAGAIN: nothing there.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], flags: i32) -> Result<Received> {
    let mut control = [0_u64; CONTROL_SIZE / 8];
    let mut address = vec![0_u8; ADDRESS_SIZE];
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = ADDRESS_SIZE as u32;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_SIZE;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header; all buffers outlive the call.
    let length =
        check(unsafe { libc::recvmsg(fd, &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) })?;
    address.truncate(message.msg_namelen as usize);
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let rights = rights_in(&bytes[..message.msg_controllen])?;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received {
        length,
        rights,
        address,
        truncated,
    })
}

/// Descriptors in control messages: 64-bit length, level, type, then the numbers.
fn rights_in(control: &[u8]) -> Result<Vec<OwnedFd>> {
    let mut rights = Vec::new();
    let word = |at: usize| {
        control
            .get(at..at + 4)
            .map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    let mut at = 0;
    while at + 16 <= control.len() {
        let length = (word(at) as usize).max(16);
        if (word(at + 8), word(at + 12)) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for number in (at + 16..at + length).step_by(4) {
                rights.push(own(word(number))?);
            }
        }
        at += length.next_multiple_of(8);
    }
    Ok(rights)
}

/// sendmsg(2), with descriptors and to an address, each unless empty.
///
/// # Errors
/// EAGAIN: no room. ECONNREFUSED, EPIPE: nobody receives.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    rights: &[i32],
    address: &[u8],
    flags: i32,
) -> Result<usize> {
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    if !address.is_empty() {
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = address.len() as u32;
    }
    let mut control = Vec::new();
    if !rights.is_empty() {
        control.extend_from_slice(&(16 + 4 * rights.len() as u64).to_ne_bytes());
        control.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control.extend_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        rights
            .iter()
            .for_each(|number| control.extend_from_slice(&number.to_ne_bytes()));
        control.resize(control.len().next_multiple_of(8), 0);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: module header; the kernel only reads.
    check(unsafe { libc::sendmsg(fd, &raw const message, flags | libc::MSG_NOSIGNAL) })
}

/// Asks sock_diag(7) with one request body; returns the bodies of the answers.
///
/// # Errors
/// ENOENT: the kernel has no such module. EINVAL: it does not understand the request.
pub fn diagnose(request: &[u8]) -> Result<Vec<Vec<u8>>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    let socket = create(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
    let mut message = Vec::new();
    message.extend_from_slice(&(16 + request.len() as u32).to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(request);
    send(&socket, &message, &[], &[], 0)?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = receive(&socket, &mut buffer, 0)?.length;
        let mut at = 0;
        while at + 16 <= length {
            let size =
                u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]])
                    as usize;
            let kind = u16::from_ne_bytes([buffer[at + 4], buffer[at + 5]]);
            let body = buffer.get(at + 16..at + size).ok_or(Errno::INVAL)?;
            match kind {
                DONE => return Ok(answers),
                ERROR => {
                    let code = body
                        .get(..4)
                        .map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return if code == 0 {
                        Ok(answers)
                    } else {
                        Err(Errno::from_raw_os_error(-code))
                    };
                }
                _ => answers.push(body.to_vec()),
            }
            at += size.next_multiple_of(4).max(16);
        }
    }
}
