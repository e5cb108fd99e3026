//! connect(2): `connect` with the four-tuple complete and before the SYN leaves, and `connect_failed` where the kernel
//! refuses before it sends one. What happens to the SYN is told by the state changes.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_user, generated::bpf_get_socket_cookie},
    macros::{fentry, fexit, kprobe, kretprobe, sock_ops, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, SockOpsContext, TracePointContext},
};
use socklife_abi::{
    event::{CAUSE_LOCAL, Connect, ConnectFailed, UNKNOWN, state},
    program::Program,
};

use crate::{
    args::{Registers, arg, record, slot},
    calls::{enter, enter_unless_entered, leave},
    emit::Subject,
    lives,
    mem::{Direct, Mem, Obj, Probe, off},
    probes::cookie::TCP_CONNECT,
    sock::{AF_INET, AF_INET6, Sock, is_v4, v4},
    task::{Task, sock_of_fd},
    twice::first,
};

#[inline(always)]
fn connect<M: Mem>(sk: u64, via: Program, task: Task) {
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    if let Some(subject) = Subject::new(sock, via, task) {
        subject.connects();
        subject.is_held();
        subject.emit(Connect {
            inode: sock.inode(),
            fd: sock.fd(),
            reserved: 0,
        });
    }
}

#[inline(always)]
fn connecting(context: &FEntryContext, via: Program) -> i32 {
    let sk = slot(context, arg!(connect_sk));
    if first(sk, Program::ConnectFentry, via) {
        connect::<Direct>(sk, via, Task::current());
    }
    0
}

#[fentry(function = "tcp_connect")]
pub fn connect_fentry(context: FEntryContext) -> i32 {
    connecting(&context, Program::ConnectFentry)
}

#[fentry(function = "tcp_connect")]
pub fn connect_fentry_second(context: FEntryContext) -> i32 {
    connecting(&context, Program::ConnectFentrySecond)
}

#[kprobe]
pub fn connect_kprobe(context: ProbeContext) -> u32 {
    connect::<Probe>(
        Registers::of(&context).arg(arg!(connect_sk)),
        Program::ConnectKprobe,
        Task::current(),
    );
    0
}

#[sock_ops]
pub fn connect_sock_ops(context: SockOpsContext) -> u32 {
    if context.op() == TCP_CONNECT {
        // SAFETY: the program's own context. Makes the cookie that `connect` reads.
        unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        // Read by address, the context is a `struct bpf_sock_ops_kern`.
        let sk = Obj::<Probe>::new(context.as_ptr().cast()).follow(off!(ops_sk)).ptr();
        connect::<Probe>(sk as u64, Program::ConnectSockOps, Task::walked());
    }
    1
}

/// The peer that connect(2) was asked for: `struct sockaddr_in` or `sockaddr_in6`, up to the address.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Peer {
    family: u16,
    port: u16,
    /// `sin_addr`, or `sin6_flowinfo`.
    first: u32,
    /// `sin6_addr`.
    v6: [u32; 4],
}

/// Where an address lies: in the caller's memory, or copied into the kernel's.
trait Place {
    unsafe fn read<T>(p: *const T) -> Option<T>;
}

struct Kernel;
struct User;

impl Place for Kernel {
    #[inline(always)]
    unsafe fn read<T>(p: *const T) -> Option<T> {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(p).ok() }
    }
}

impl Place for User {
    #[inline(always)]
    unsafe fn read<T>(p: *const T) -> Option<T> {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(p).ok() }
    }
}

impl Peer {
    /// The shorter address may end where its page ends: reads what its family has.
    #[inline(always)]
    fn read<P: Place>(uaddr: u64, _: P) -> Self {
        let mut peer = Self::default();
        // SAFETY: any bytes are a value.
        unsafe {
            if let Some(head) = P::read(uaddr as *const [u32; 2]) {
                peer.family = head[0] as u16;
                peer.port = (head[0] >> 16) as u16;
                peer.first = head[1];
            }
            if peer.family == AF_INET6
                && let Some(v6) = P::read((uaddr + 8) as *const [u32; 4])
            {
                peer.v6 = v6;
            }
        }
        peer
    }

    #[inline(always)]
    fn address(&self) -> Option<[u64; 2]> {
        match self.family {
            AF_INET => Some(v4(self.first)),
            AF_INET6 => Some([
                u64::from(self.v6[0]) | u64::from(self.v6[1]) << 32,
                u64::from(self.v6[2]) | u64::from(self.v6[3]) << 32,
            ]),
            _ => None,
        }
    }
}

#[inline(always)]
fn refused<M: Mem>(sock: Sock<M>, peer: Peer, errno: u32, via: Program) {
    let Some(daddr) = peer.address() else { return };
    let mut tuple = sock.tuple();
    tuple.daddr = daddr;
    tuple.dport = u16::from_be(peer.port);
    // tcp_v4_connect() gets the bare IPv4 address, also of a v4-mapped connect.
    tuple.mapped = sock.is_ipv6() && is_v4(daddr);
    tuple.family = if is_v4(daddr) { 4 } else { 6 };
    if let Some(subject) = Subject::with_tuple(sock, tuple, via, Task::current()) {
        subject.emit(ConnectFailed {
            elapsed_ns: UNKNOWN,
            errno,
            cause: CAUSE_LOCAL,
            sender: [0; 2],
            icmp: 0,
            icmp_type: 0,
            icmp_code: 0,
            reserved: [0; 5],
        });
    }
}

/// A return value that is an error, as a positive errno. Values from 512 on are the kernel's own (`ERESTARTSYS`).
#[inline(always)]
fn errno(returned: i32) -> Option<u32> {
    (-511..0).contains(&returned).then_some(-returned as u32)
}

#[inline(always)]
fn connect_returned<M: Mem>(sk: u64, uaddr: u64, returned: i32, via: Program, v6: bool) {
    let Some(errno) = errno(returned) else { return };
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    let peer = Peer::read(uaddr, Kernel);
    // tcp_v6_connect() hands a v4-mapped peer on to tcp_v4_connect(), which has told already.
    if v6 && peer.address().is_some_and(is_v4) {
        return;
    }
    refused(sock, peer, errno, via);
}

#[inline(always)]
fn failed4(context: &FExitContext, via: Program) -> i32 {
    let (sk, returned) = (
        slot(context, arg!(connect4_sk)),
        slot(context, arg!(connect4_ret)) as i32,
    );
    if returned < 0 && first(sk, Program::ConnectFailFexit4, via) {
        connect_returned::<Direct>(sk, slot(context, arg!(connect4_uaddr)), returned, via, false);
    }
    0
}

#[fexit(function = "tcp_v4_connect")]
pub fn connect_fail_fexit4(context: FExitContext) -> i32 {
    failed4(&context, Program::ConnectFailFexit4)
}

#[fexit(function = "tcp_v4_connect")]
pub fn connect_fail_fexit4_second(context: FExitContext) -> i32 {
    failed4(&context, Program::ConnectFailFexit4Second)
}

#[inline(always)]
fn failed6(context: &FExitContext, via: Program) -> i32 {
    let (sk, returned) = (
        slot(context, arg!(connect6_sk)),
        slot(context, arg!(connect6_ret)) as i32,
    );
    if returned < 0 && first(sk, Program::ConnectFailFexit6, via) {
        connect_returned::<Direct>(sk, slot(context, arg!(connect6_uaddr)), returned, via, true);
    }
    0
}

#[fexit(function = "tcp_v6_connect")]
pub fn connect_fail_fexit6(context: FExitContext) -> i32 {
    failed6(&context, Program::ConnectFailFexit6)
}

#[fexit(function = "tcp_v6_connect")]
pub fn connect_fail_fexit6_second(context: FExitContext) -> i32 {
    failed6(&context, Program::ConnectFailFexit6Second)
}

/// Both functions take the same. Of a v4-mapped connect the inner call remains.
#[inline(always)]
fn entered_by_kprobe(context: &ProbeContext, _: Program) {
    let registers = Registers::of(context);
    enter(registers.arg(arg!(connect4_sk)), registers.arg(arg!(connect4_uaddr)));
}

#[inline(always)]
fn returned_by_kretprobe(context: &RetProbeContext, via: Program) {
    let Some(call) = leave() else { return };
    let returned = Registers::of(context).returned() as i32;
    connect_returned::<Probe>(call.object, call.other, returned, via, false);
}

at_each!(kprobe(ProbeContext) entered_by_kprobe:
    connect_fail_kprobe4 = ConnectFailKprobe4, connect_fail_kprobe6 = ConnectFailKprobe6);
at_each!(kretprobe(RetProbeContext) returned_by_kretprobe:
    connect_fail_kretprobe4 = ConnectFailKretprobe4, connect_fail_kretprobe6 = ConnectFailKretprobe6);

#[inline(always)]
fn call_entered(context: &TracePointContext, _: Program) {
    enter(record(context, 16), record(context, 24));
}

#[inline(always)]
fn call_entered_second(context: &TracePointContext, _: Program) {
    enter_unless_entered(record(context, 16), record(context, 24));
}

/// `syscalls:sys_exit_connect`. Here a connect that failed at the SYN is seen too: `attempt` tells it apart. Who sees the
/// return takes the note of the call away: a second program finds none.
#[inline(always)]
fn call_returned(context: &TracePointContext, via: Program) {
    let Some(call) = leave() else { return };
    let Some(sock) = sock_of_fd(call.object) else {
        return;
    };
    if let Some(life) = lives::known(sock.key(), lives::cookie(sock.key()))
        && life.attempt != 0
    {
        life.attempt = 0;
        return;
    }
    let Some(errno) = errno(record(context, 16) as i32) else {
        return;
    };
    if says_nothing_new(errno) || sock.state() != state::CLOSE {
        return;
    }
    refused(sock, Peer::read(call.other, User), errno, via);
}

at_each!(tracepoint(TracePointContext) call_entered: connect_enter_tp = ConnectEnterTp);
at_each!(tracepoint(TracePointContext) call_entered_second: connect_enter_tp_second = ConnectEnterTpSecond);
at_each!(tracepoint(TracePointContext) call_returned:
    connect_fail_tp = ConnectFailTp, connect_fail_tp_second = ConnectFailTpSecond);

/// Errors of connect(2) that do not come from `tcp_v4_connect` or `tcp_v6_connect`: about the call itself, or about an
/// attempt that was told already.
#[inline(always)]
fn says_nothing_new(errno: u32) -> bool {
    const EINTR: u32 = 4;
    const EBADF: u32 = 9;
    const EFAULT: u32 = 14;
    const ENOTSOCK: u32 = 88;
    const ECONNABORTED: u32 = 103;
    const ECONNRESET: u32 = 104;
    const EISCONN: u32 = 106;
    const ETIMEDOUT: u32 = 110;
    const ECONNREFUSED: u32 = 111;
    const EALREADY: u32 = 114;
    const EINPROGRESS: u32 = 115;
    matches!(
        errno,
        EINTR
            | EBADF
            | EFAULT
            | ENOTSOCK
            | ECONNABORTED
            | ECONNRESET
            | EISCONN
            | ETIMEDOUT
            | ECONNREFUSED
            | EALREADY
            | EINPROGRESS
    )
}
