//! Why the running kernel drops segments and sends RSTs, by the names that its BTF has: the numbers change from build to
//! build.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use socklife_abi::{config, event::NO_REASON};

use super::meanings::{self, DROPS, RESETS};

/// Nothing is lost: TCP is done with the segment, or its socket is closed.
pub const USED_UP: [&str; 5] = [
    "SKB_NOT_DROPPED_YET",
    "SKB_CONSUMED",
    "QUEUE_PURGE",
    "SOCKET_CLOSE",
    // A RST that was obeyed (`tcp_validate_incoming`).
    "TCP_RESET",
];

/// An ACK without data that says nothing new: a window probe, a keepalive, or one that others have overtaken.
pub const STALE_ACK: [&str; 9] = [
    "TCP_ZEROWINDOW",
    "TCP_OVERWINDOW",
    "TCP_RFC7323_PAWS_ACK",
    "TCP_OLD_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_INVALID_END_SEQUENCE",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_OLD_ACK",
    "TCP_TOO_OLD_ACK",
];

/// The receiving socket has no room for it.
pub const NO_ROOM: [&str; 7] = [
    "SOCKET_RCVBUFF",
    "SOCKET_BACKLOG",
    "PROTO_MEM",
    "TCP_ZEROWINDOW",
    "TCP_OVERWINDOW",
    // From 6.17 on TCP looks at the window before it looks at the queue (`tcp_sequence`).
    "TCP_INVALID_END_SEQUENCE",
    "TCP_OFO_QUEUE_PRUNE",
];

/// The running kernel's reasons, by number.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    /// `enum skb_drop_reason`, 5.17 and later, and those of subsystems that are built in.
    pub drops: BTreeMap<u32, String>,
    /// `enum skb_drop_reason_subsys`: the upper half of a subsystem's reason.
    pub subsystems: BTreeMap<u32, String>,
    /// `enum sk_rst_reason`, 6.10 and later.
    pub resets: BTreeMap<u32, String>,
}

/// Those of the kernel that is traced.
static KNOWN: OnceLock<Reasons> = OnceLock::new();

impl Reasons {
    /// The number of a drop reason, if this kernel has it.
    pub fn drop_named(&self, name: &str) -> Option<u32> {
        let mut reasons = self.drops.iter();
        reasons.find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The drop reasons of these names, as far as this kernel has them.
    pub fn set(&self, names: &[&str]) -> config::Reasons {
        let mut set = config::Reasons::default();
        for number in names.iter().filter_map(|name| self.drop_named(name)) {
            if let Some(word) = set.get_mut(number as usize / 64) {
                *word |= 1 << (number % 64);
            }
        }
        set
    }

    /// A drop reason in words. The enumeration of a module's subsystem is not in the kernel's own BTF: then it is the
    /// subsystem, and the number there.
    fn drop(&self, number: u32) -> String {
        let (subsystem, within) = (number >> 16, number & 0xffff);
        if let Some(name) = self.drops.get(&number) {
            return name.clone();
        }
        match self.subsystems.get(&subsystem) {
            Some(name) if subsystem != 0 => format!("{name} {within}"),
            None if subsystem != 0 => format!("SUBSYS_{subsystem} {within}"),
            _ => number.to_string(),
        }
    }

    /// From now on events show these names.
    pub fn publish(&self) {
        KNOWN.get_or_init(|| self.clone());
    }
}

/// A reason as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kernel's name for it.
    pub name: String,
    /// What it means; `None` for one that is newer than this program.
    pub means: Option<&'static str>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.means {
            Some(means) => write!(f, " ({means})"),
            None => Ok(()),
        }
    }
}

/// A drop reason; `None` where the kernel gives none.
pub fn of_drop(number: u32) -> Option<Reason> {
    if number == NO_REASON {
        return None;
    }
    let name = KNOWN
        .get()
        .map_or_else(|| number.to_string(), |reasons| reasons.drop(number));
    let means = meanings::of(DROPS, &name);
    Some(Reason { name, means })
}

/// The reason of a RST; `None` where the kernel gives none.
pub fn of_reset(number: u32) -> Option<Reason> {
    if number == NO_REASON {
        return None;
    }
    let name = KNOWN.get().and_then(|reasons| reasons.resets.get(&number)).cloned();
    let name = name.unwrap_or_else(|| number.to_string());
    let means = meanings::of(RESETS, &name);
    Some(Reason { name, means })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{NO_ROOM, Reasons};

    #[test]
    fn reasons_have_the_running_kernels_numbers() {
        let names = |pairs: &[(u32, &str)]| {
            let pairs = pairs.iter().map(|(number, name)| (*number, (*name).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let reasons = Reasons {
            drops: names(&[
                (6, "SOCKET_RCVBUFF"),
                (130, "PROTO_MEM"),
                (0x3_0002, "QDISC_DROP_OVERLIMIT"),
            ]),
            subsystems: names(&[(0, "CORE"), (2, "OPENVSWITCH"), (3, "QDISC")]),
            resets: BTreeMap::new(),
        };
        assert_eq!(reasons.set(&NO_ROOM), [1 << 6, 0, 1 << 2, 0]);
        assert_eq!(reasons.drop_named("NO_SOCKET"), None);
        let shown = [6, 0x3_0002, 0x2_0005, 0x3_0009, 0x1_0003, 77].map(|number| reasons.drop(number));
        assert_eq!(
            shown,
            [
                "SOCKET_RCVBUFF",
                "QDISC_DROP_OVERLIMIT",
                "OPENVSWITCH 5",
                "QDISC 9",
                "SUBSYS_1 3",
                "77"
            ]
        );
    }
}
