//! How many connections may wait at a listener: `sock_diag(7)` tells it, `/proc/net/tcp` does not. It takes no privilege;
//! on a kernel without `tcp_diag` it stays unknown.

use std::{
    collections::HashMap,
    io::{Read as _, Result},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::listeners::Listener;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLMSG_DONE`; others with small numbers carry nothing either.
const CONTROL: u16 = 16;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
/// In `struct inet_diag_msg`: the queue's limit is `idiag_wqueue` of a listener, and at the end is the inode.
const LIMIT: usize = 60;
const INODE: usize = 68;

/// Fills in the limits; what nobody tells stays as it is.
pub fn fill(listeners: &mut [Listener]) {
    let mut limits = HashMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Without `tcp_diag` there is an error in place of an answer.
        let _ = dump(family, &mut limits);
    }
    for listener in listeners {
        let known: Option<Vec<u64>> = listener
            .sockets
            .iter()
            .map(|inode| limits.get(inode).copied())
            .collect();
        listener.accept_queue_limit = known.map(|limits| limits.into_iter().sum());
    }
}

fn dump(family: i32, limits: &mut HashMap<u64, u64>) -> Result<()> {
    let domain = Domain::from(libc::AF_NETLINK);
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(&request(family))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 || !take(&buffer[..length], limits) {
            return Ok(());
        }
    }
}

/// Asks for all listeners of a family.
fn request(family: i32) -> Vec<u8> {
    const LISTEN: u32 = 1 << 10;
    // NLM_F_REQUEST | NLM_F_DUMP
    const FLAGS: u16 = 1 | 0x300;
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([
        u8::try_from(family).unwrap_or(0),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or(0),
        0,
        0,
    ]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Takes the messages of a datagram; false after the last.
fn take(mut messages: &[u8], limits: &mut HashMap<u64, u64>) -> bool {
    while let Some(length) = word(messages, 0).and_then(|length| usize::try_from(length).ok()) {
        let kind = messages.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        let Some(message) = messages.get(HEADER..length) else {
            return false;
        };
        match kind {
            Some(BY_FAMILY) => {
                if let (Some(limit), Some(inode)) = (word(message, LIMIT), word(message, INODE)) {
                    limits.insert(inode.into(), limit.into());
                }
            }
            Some(kind) if kind >= CONTROL => {}
            _ => return false,
        }
        // Aligned to four bytes.
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    true
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{BY_FAMILY, take};

    #[test]
    fn answers_are_taken_to_their_end() {
        let message = |kind: u16, limit: u32, inode: u32| {
            let mut bytes = vec![0; 88];
            bytes[0..4].copy_from_slice(&88_u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[76..80].copy_from_slice(&limit.to_ne_bytes());
            bytes[84..88].copy_from_slice(&inode.to_ne_bytes());
            bytes
        };
        let mut limits = HashMap::new();
        let two = [message(BY_FAMILY, 127, 41), message(BY_FAMILY, 4099, 43)].concat();
        assert!(take(&two, &mut limits), "there may be more");
        assert_eq!(limits, HashMap::from([(41, 127), (43, 4099)]));
        assert!(!take(&message(3, 0, 0), &mut limits), "NLMSG_DONE");
        assert!(!take(&two[..87], &mut limits), "cut off");
    }
}
