//! Identity: a socket has a cookie from the moment that someone asks for it. We ask as early as we can.
//!
//! The cookie of a `request_sock` is inherited by the child, so the number is the same from the SYN to the destroy.
//! Only these program types have the helper on every kernel (tracing: 5.12).

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, sock_ops},
    programs::{SockContext, SockOpsContext},
};
use socklife_abi::program::Program;

use crate::{
    listeners, lives,
    mem::{Obj, Probe, off},
};

/// `BPF_SOCK_OPS_…_CB` (`include/uapi/linux/bpf.h`).
pub const TIMEOUT_INIT: u32 = 1;
pub const RWND_INIT: u32 = 2;
pub const TCP_CONNECT: u32 = 3;
const ACTIVE_ESTABLISHED: u32 = 4;
pub const PASSIVE_ESTABLISHED: u32 = 5;
pub const NEEDS_ECN: u32 = 6;
pub const TCP_LISTEN: u32 = 11;

/// The socket is made at an address where another may have been whose end nobody saw.
#[cgroup_sock(sock_create)]
pub fn cookie_sock_create(context: SockContext) -> i32 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    // Here the context is the `struct sock` itself, once it is read by address. The address by way of the socket, because
    // the context's may be no key of a table.
    let socket = Obj::<Probe>::new(context.as_ptr().cast()).follow(off!(socket));
    let sk = socket.follow(off!(socket_sk)).ptr() as u64;
    lives::anew(sk);
    listeners::forget(sk, Program::CookieSockCreate);
    1
}

#[sock_ops]
pub fn cookie_sock_ops(context: SockOpsContext) -> u32 {
    match context.op() {
        TIMEOUT_INIT | TCP_CONNECT | ACTIVE_ESTABLISHED | PASSIVE_ESTABLISHED | TCP_LISTEN => {
            // SAFETY: the program's own context.
            unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        }
        _ => {}
    }
    1
}
