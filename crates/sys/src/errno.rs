//! Error numbers as people read them.

use crate::Errno;

/// The error's text in lower case with its symbol: `operation not permitted (EPERM)`.
///
/// Engines match the text part, which is the one Go prints (`syscall.Errno.Error`).
#[must_use]
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{} ({})", lower_first(text), name(errno))
}

/// Lowers the first letter unless the word is an acronym (`RFS specific error`).
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// The symbol of an error number (`EPERM`), or its decimal value where it has no common name.
#[must_use]
pub fn name(errno: Errno) -> String {
    let known = NAMES.iter().find(|(value, _)| *value == errno);
    known.map_or_else(
        || errno.raw_os_error().to_string(),
        |(_, name)| (*name).to_owned(),
    )
}

macro_rules! names {
    ($($rustix:ident $symbol:literal),* $(,)?) => { &[$((Errno::$rustix, $symbol)),*] };
}

const NAMES: &[(Errno, &str)] = names![
    PERM "EPERM", NOENT "ENOENT", SRCH "ESRCH", INTR "EINTR", IO "EIO", NXIO "ENXIO",
    TOOBIG "E2BIG", NOEXEC "ENOEXEC", BADF "EBADF", CHILD "ECHILD", AGAIN "EAGAIN",
    NOMEM "ENOMEM", ACCESS "EACCES", FAULT "EFAULT", BUSY "EBUSY", EXIST "EEXIST",
    XDEV "EXDEV", NODEV "ENODEV", NOTDIR "ENOTDIR", ISDIR "EISDIR", INVAL "EINVAL",
    NFILE "ENFILE", MFILE "EMFILE", NOTTY "ENOTTY", TXTBSY "ETXTBSY", FBIG "EFBIG",
    NOSPC "ENOSPC", SPIPE "ESPIPE", ROFS "EROFS", MLINK "EMLINK", PIPE "EPIPE",
    RANGE "ERANGE", DEADLK "EDEADLK", NAMETOOLONG "ENAMETOOLONG", NOSYS "ENOSYS",
    NOTEMPTY "ENOTEMPTY", LOOP "ELOOP", NODATA "ENODATA", OVERFLOW "EOVERFLOW",
    USERS "EUSERS", NOTSOCK "ENOTSOCK", MSGSIZE "EMSGSIZE", PROTONOSUPPORT "EPROTONOSUPPORT",
    OPNOTSUPP "EOPNOTSUPP", AFNOSUPPORT "EAFNOSUPPORT", ADDRINUSE "EADDRINUSE",
    ADDRNOTAVAIL "EADDRNOTAVAIL", NETDOWN "ENETDOWN", NETUNREACH "ENETUNREACH",
    CONNRESET "ECONNRESET", NOBUFS "ENOBUFS", NOTCONN "ENOTCONN", TIMEDOUT "ETIMEDOUT",
    CONNREFUSED "ECONNREFUSED", ALREADY "EALREADY", STALE "ESTALE", DQUOT "EDQUOT",
    CANCELED "ECANCELED", KEYEXPIRED "EKEYEXPIRED", KEYREVOKED "EKEYREVOKED",
    NOKEY "ENOKEY",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_as_engines_expect() {
        for (errno, text) in [
            (Errno::PERM, "operation not permitted (EPERM)"),
            (Errno::NOENT, "no such file or directory (ENOENT)"),
            (Errno::ACCESS, "permission denied (EACCES)"),
        ] {
            assert_eq!(describe(errno), text);
        }
    }
}
