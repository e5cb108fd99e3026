//! How many connections may wait at a listener: `sock_diag(7)` tells it, `/proc/net/tcp` does not. On a kernel without
//! `tcp_diag` it stays unknown.

use std::collections::HashMap;

use super::listeners::Listener;
use crate::sock_diag;

/// The bit of `TCP_LISTEN`.
const LISTEN: u32 = 1 << 10;
/// In `struct inet_diag_msg`: the queue's limit is `idiag_wqueue` of a listener, and at the end is the inode.
const LIMIT: usize = 60;
const INODE: usize = 68;

/// Fills in the limits; what nobody tells stays as it is.
pub fn fill(listeners: &mut [Listener]) {
    let mut limits = HashMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Without `tcp_diag` there is an error in place of an answer.
        let _ = sock_diag::dump(family, LISTEN, |message| limits.extend(limit(message)));
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

/// The inode of a listener, and its limit.
fn limit(message: &[u8]) -> Option<(u64, u64)> {
    Some((word(message, INODE)?.into(), word(message, LIMIT)?.into()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::limit;

    #[test]
    fn a_listener_has_its_limit_by_inode() {
        let mut message = [0; 72];
        message[60..64].copy_from_slice(&127_u32.to_ne_bytes());
        message[68..72].copy_from_slice(&41_u32.to_ne_bytes());
        assert_eq!(limit(&message), Some((41, 127)));
        assert_eq!(limit(&message[..71]), None);
    }
}
