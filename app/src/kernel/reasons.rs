//! Why the running kernel drops segments and sends RSTs, by the names that its BTF has: the numbers change from build to
//! build.

use std::{collections::BTreeMap, sync::OnceLock};

use socklife_abi::{config, event::NO_REASON};

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
    /// `enum skb_drop_reason`, 5.17 and later.
    pub drops: BTreeMap<u32, String>,
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

    /// From now on events show these names.
    pub fn publish(&self) {
        KNOWN.get_or_init(|| self.clone());
    }
}

/// The name of a drop reason; `None` where the kernel gives none.
pub fn of_drop(number: u32) -> Option<String> {
    name(KNOWN.get().map(|reasons| &reasons.drops), number)
}

/// The name of the reason of a RST; `None` where the kernel gives none.
pub fn of_reset(number: u32) -> Option<String> {
    name(KNOWN.get().map(|reasons| &reasons.resets), number)
}

/// A subsystem's reasons have numbers from 65536 on, and no names in that enumeration.
fn name(names: Option<&BTreeMap<u32, String>>, number: u32) -> Option<String> {
    if number == NO_REASON {
        return None;
    }
    let name = names.and_then(|names| names.get(&number)).cloned();
    Some(name.unwrap_or_else(|| number.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{NO_ROOM, Reasons, name};
    use socklife_abi::event::NO_REASON;

    #[test]
    fn reasons_have_the_running_kernels_numbers() {
        let drops = BTreeMap::from([(6, "SOCKET_RCVBUFF".to_owned()), (130, "PROTO_MEM".to_owned())]);
        let reasons = Reasons {
            drops: drops.clone(),
            resets: BTreeMap::new(),
        };
        assert_eq!(reasons.set(&NO_ROOM), [1 << 6, 0, 1 << 2, 0]);
        assert_eq!(reasons.drop_named("NO_SOCKET"), None);
        assert_eq!(name(Some(&drops), 6).as_deref(), Some("SOCKET_RCVBUFF"));
        assert_eq!(name(Some(&drops), 0x10003).as_deref(), Some("65539"));
        assert_eq!(name(Some(&drops), NO_REASON), None);
    }
}
