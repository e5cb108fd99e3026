use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer, ser::SerializeMap};
use socklife_abi::event::{CAUSE_CLOSED_BY_CALLER, CAUSE_DISCONNECTED, CAUSE_ERRNO, CAUSE_LOCAL, ConnectFailed};

use super::{Describe, FieldDoc, Millis, address, known, names::Errno};

impl Describe for ConnectFailed {
    const MEANING: &'static str = "A connect ended without a connection.";
    const TASK: Option<&'static str> =
        Some("the one in whose call the attempt ended; absent where it ended in softirq");
    const FIELDS: &'static [FieldDoc] = &[
        (
            "errno",
            "by name: `ECONNREFUSED`, `ETIMEDOUT`, …; absent where there is none, as when the caller closed",
        ),
        (
            "cause",
            "`error`: the SYN was answered by one, or by nothing; `local`: the kernel refused before it sent a SYN; \
             `closed_by_caller`; `disconnected`: given up by `connect(AF_UNSPEC)`; `unknown`",
        ),
        (
            "icmp",
            "the ICMP that said so, where one did (6.0 and later tell): an object with `type`, `code` and `from`, who sent \
             it. Its errno is what the process is told, also where it closed before that ended the attempt",
        ),
        ("elapsed_ns", "since `connect`"),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if self.errno != 0 {
            map.serialize_entry("errno", &Errno(self.errno))?;
        }
        map.serialize_entry("cause", cause(self.cause))?;
        if self.icmp != 0 {
            map.serialize_entry("icmp", &Icmp::of(self))?;
        }
        match known(self.elapsed_ns) {
            Some(ns) => map.serialize_entry("elapsed_ns", &ns),
            None => Ok(()),
        }
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.cause {
            CAUSE_ERRNO => write!(out, "{}", Errno(self.errno))?,
            CAUSE_LOCAL => write!(out, "{}, no SYN sent", Errno(self.errno))?,
            CAUSE_CLOSED_BY_CALLER => out.write_str("closed by the caller")?,
            CAUSE_DISCONNECTED => out.write_str("given up by the caller")?,
            _ => out.write_str("unknown cause")?,
        }
        if self.icmp != 0 {
            let Icmp { kind, code, from } = Icmp::of(self);
            write!(out, ", by ICMP {kind}/{code} from {from}")?;
        }
        match known(self.elapsed_ns) {
            Some(ns) => write!(out, " after {}", Millis(ns)),
            None => Ok(()),
        }
    }
}

/// The ICMP that ended it.
struct Icmp {
    kind: u8,
    code: u8,
    from: IpAddr,
}

impl Icmp {
    fn of(failed: &ConnectFailed) -> Self {
        Self {
            kind: failed.icmp_type,
            code: failed.icmp_code,
            from: address(failed.sender, failed.icmp),
        }
    }
}

impl Serialize for Icmp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("from", &self.from)?;
        map.end()
    }
}

fn cause(cause: u32) -> &'static str {
    match cause {
        CAUSE_ERRNO => "error",
        CAUSE_LOCAL => "local",
        CAUSE_CLOSED_BY_CALLER => "closed_by_caller",
        CAUSE_DISCONNECTED => "disconnected",
        _ => "unknown",
    }
}
