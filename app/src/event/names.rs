//! The kernel's numbers by name.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::FieldDoc;
use crate::kernel::reasons::Reason;

/// The field that says what a reason means.
pub const MEANS: FieldDoc = (
    "means",
    "`reason` in words ([reasons.md](reasons.md)); absent for one that this version does not know",
);

/// Writes a reason, where there is one, and what it means.
pub fn reason_json<M: SerializeMap>(reason: Option<Reason>, map: &mut M) -> Result<(), M::Error> {
    let Some(Reason { name, means }) = reason else {
        return Ok(());
    };
    map.serialize_entry("reason", &name)?;
    match means {
        Some(means) => map.serialize_entry("means", means),
        None => Ok(()),
    }
}

/// A TCP state.
pub fn state(number: u32) -> &'static str {
    socklife_abi::event::state::name(number).unwrap_or("UNKNOWN")
}

/// The name at a number of the ABI; what this version does not know is "unknown".
pub fn numbered(names: &[&'static str], number: u32) -> &'static str {
    usize::try_from(number)
        .ok()
        .and_then(|number| names.get(number).copied())
        .unwrap_or("unknown")
}

/// An errno, shown by name, or as its number where it has no common one.
pub struct Errno(pub u32);

/// What TCP and the socket calls report.
const ERRNOS: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::ENODEV, "ENODEV"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::EPIPE, "EPIPE"),
    (libc::EPROTO, "EPROTO"),
    (libc::EBADMSG, "EBADMSG"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENETRESET, "ENETRESET"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::EISCONN, "EISCONN"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EHOSTDOWN, "EHOSTDOWN"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EALREADY, "EALREADY"),
    (libc::EINPROGRESS, "EINPROGRESS"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRNOS.iter().find(|(number, _)| u32::try_from(*number) == Ok(self.0)) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The flags in a TCP header.
pub struct TcpFlags(pub u8);

const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = TCP_FLAGS.iter().enumerate().filter(|(i, _)| self.0 >> i & 1 != 0);
        for (n, (_, name)) in set.enumerate() {
            write!(f, "{}{name}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kernel address, shown as a number that tells only whether it is the same again: the address itself is a secret.
pub struct Nameless(pub u64);

/// Another one each time socklife runs.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl fmt::Display for Nameless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", SECRET.hash_one(self.0) >> 16)
    }
}

impl Serialize for Nameless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Nameless, TcpFlags};

    #[test]
    fn addresses_are_told_apart_and_not_told() {
        let address = 0xffff_8881_0000_1234;
        assert_eq!(Nameless(address).to_string(), Nameless(address).to_string());
        assert_ne!(Nameless(address).to_string(), Nameless(address + 1).to_string());
        assert!(!Nameless(address).to_string().contains("88810000"));
    }

    #[test]
    fn flags_have_their_names() {
        assert_eq!(TcpFlags(0x12).to_string(), "SYN,ACK");
        assert_eq!(TcpFlags(0).to_string(), "");
    }
}
