//! Lists of TCP sockets by `sock_diag(7)`. It takes no privilege; a kernel without `inet_diag` answers with an error.

use std::{
    io::{Error, Read as _, Result},
    time::Duration,
};

use bytemuck::{Pod, Zeroable};
use socket2::{Domain, Protocol, Socket, Type};

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// How long the kernel may take for the next part of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
    family: u8,
    protocol: u8,
    ext: u8,
    pad: u8,
    states: u32,
    id: [u32; 12],
}

const _: () = assert!(size_of::<Request>() == HEADER + 56);

/// Hands out the `struct inet_diag_msg` of each TCP socket of this thread's network namespace that is of this family and
/// in one of these states (one bit for each, by `include/net/tcp_states.h`).
///
/// # Errors
///
/// The kernel's, where it does not take the request; an error in its answer ends the list.
pub fn dump(family: i32, states: u32, mut each: impl FnMut(&[u8])) -> Result<()> {
    let request = Request {
        len: u32::try_from(size_of::<Request>()).map_err(Error::other)?,
        kind: BY_FAMILY,
        flags: u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).map_err(Error::other)?,
        family: u8::try_from(family).map_err(Error::other)?,
        protocol: u8::try_from(libc::IPPROTO_TCP).map_err(Error::other)?,
        states,
        ..Request::zeroed()
    };
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(bytemuck::bytes_of(&request))?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let length = socket.read(&mut answer)?;
        if length == 0 || !take(&answer[..length], &mut each) {
            return Ok(());
        }
    }
}

/// Takes the messages of a datagram; false where they end the list: with `NLMSG_DONE`, `NLMSG_ERROR`, or nonsense.
fn take(mut messages: &[u8], each: &mut impl FnMut(&[u8])) -> bool {
    while let Some(header) = messages.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(message) = messages.get(HEADER..length) else {
            return false;
        };
        if kind == BY_FAMILY {
            each(message);
        } else if matches!(i32::from(kind), libc::NLMSG_DONE | libc::NLMSG_ERROR) {
            return false;
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::take;

    fn message(kind: u16, payload: usize) -> Vec<u8> {
        let len = u32::try_from(16 + payload).expect("short");
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize((16 + payload).next_multiple_of(4), 0);
        bytes
    }

    /// Whether there may be more, and the lengths of what was handed out.
    fn taken(messages: &[Vec<u8>]) -> (bool, Vec<usize>) {
        let mut lengths = Vec::new();
        let more = take(&messages.concat(), &mut |message| lengths.push(message.len()));
        (more, lengths)
    }

    #[test]
    fn a_list_ends_with_done_or_error() {
        let (socket, done, error) = (message(20, 70), message(3, 4), message(2, 20));
        assert_eq!(taken(&[socket.clone(), socket.clone()]), (true, vec![70, 70]));
        assert_eq!(taken(&[socket.clone(), done]), (false, vec![70]));
        assert_eq!(taken(&[error, socket.clone()]), (false, vec![]));
        assert_eq!(taken(&[]), (true, vec![]));
        assert_eq!(taken(&[vec![0; 16]]), (false, vec![]), "nonsense ends it");
        assert_eq!(taken(&[socket[..85].to_vec()]), (false, vec![]), "cut off");
    }
}
