//! Sockets that are older than the trace: the kernel makes a socket's cookie when somebody asks for it, and a dump by
//! `sock_diag(7)` asks for all of them (`sock_diag_save_cookie`). What it answers is thrown away.

use std::{
    io::{Error, Result},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::namespaces;

/// `NETLINK_SOCK_DIAG`, `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

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

const _: () = assert!(size_of::<Request>() == 16 + 56);

/// Sees to it that every TCP socket of this namespace, or of all, has a cookie. Best effort: without it, what is older
/// than the trace may have no cookie in `kprobe` and `tracepoint`, and unknown is shown as unknown.
pub fn ask(netns: u32) {
    let visits = namespaces::find(netns).into_iter().map(|namespace| (namespace, ()));
    let _ = namespaces::visit(visits.collect(), |_, ()| {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let _ = dump(family);
        }
        Ok(())
    });
}

/// Has the kernel list every TCP socket of this thread's namespace.
fn dump(family: i32) -> Result<()> {
    let request = Request {
        len: u32::try_from(size_of::<Request>()).map_err(Error::other)?,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).map_err(Error::other)?,
        family: u8::try_from(family).map_err(Error::other)?,
        protocol: u8::try_from(libc::IPPROTO_TCP).map_err(Error::other)?,
        states: u32::MAX,
        ..Request::zeroed()
    };
    let mut answer = vec![0_u8; 1 << 16];
    // SAFETY: a new socket that `OwnedFd` closes, and buffers of the sizes that are named.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let bytes = bytemuck::bytes_of(&request);
        if libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) < 0 {
            return Err(Error::last_os_error());
        }
        loop {
            let read = libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0);
            let Ok(read @ 1..) = usize::try_from(read) else {
                return Err(Error::last_os_error());
            };
            if is_last(&answer[..read.min(answer.len())]) {
                return Ok(());
            }
        }
    }
}

/// Whether these messages end a dump: `NLMSG_DONE`, or `NLMSG_ERROR`.
fn is_last(mut messages: &[u8]) -> bool {
    while let Some(header) = messages.get(..16) {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
        if kind == libc::NLMSG_DONE || kind == libc::NLMSG_ERROR || len < 16 {
            return true;
        }
        messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::is_last;

    fn message(kind: u16, payload: usize) -> Vec<u8> {
        let len = u32::try_from(16 + payload).expect("short");
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize((16 + payload).next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_dump_ends_with_done_or_error() {
        let (socket, done, error) = (message(20, 70), message(3, 4), message(2, 20));
        assert!(!is_last(&socket));
        assert!(!is_last(&[socket.clone(), socket.clone()].concat()));
        assert!(is_last(&[socket.clone(), done].concat()));
        assert!(is_last(&error));
        assert!(is_last(&[0; 16]), "nonsense ends it");
        assert!(!is_last(&[]));
    }
}
