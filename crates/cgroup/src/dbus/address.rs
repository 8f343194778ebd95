//! Addresses of buses: `unix:path=/run/bus,guid=…;unix:abstract=name`.

use std::io::{Error, ErrorKind, Result};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

/// Connects to the first address that answers; the error is the last one's.
pub(super) fn connect(addresses: &str) -> Result<UnixStream> {
    let mut last = Error::new(ErrorKind::InvalidInput, "no unix socket in the address");
    for address in addresses.split(';').filter_map(parse) {
        match address.and_then(|address| UnixStream::connect_addr(&address)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The socket of one address; `None` for other transports and unknown keys.
fn parse(address: &str) -> Option<Result<SocketAddr>> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',')
        .find_map(|pair| match pair.split_once('=')? {
            ("path", path) => {
                let path = unescape(path)?;
                Some(SocketAddr::from_pathname(Path::new(
                    std::ffi::OsStr::from_bytes(&path),
                )))
            }
            ("abstract", name) => Some(SocketAddr::from_abstract_name(unescape(name)?)),
            _ => None,
        })
}

/// Undoes `%2f` escapes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        plain.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_sockets() {
        for (address, expected) in [
            ("unix:path=/run/bus", Some("/run/bus")),
            (
                "unix:guid=12,path=/run/user%2f1000/bus",
                Some("/run/user/1000/bus"),
            ),
            ("unix:path=%2", None),
            ("unix:path=%zz", None),
            ("tcp:host=localhost", None),
            ("", None),
        ] {
            let found = parse(address).map(|found| found.unwrap());
            let path = found.as_ref().and_then(|found| found.as_pathname());
            assert_eq!(path, expected.map(Path::new), "{address}");
        }
        let name = parse("unix:abstract=a%20b").unwrap().unwrap();
        assert_eq!(name.as_abstract_name(), Some(b"a b".as_slice()));
    }
}
