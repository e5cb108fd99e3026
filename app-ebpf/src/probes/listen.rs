//! listen(2): `listening`. What was asked is seen at entry of the system call only; what it got, on the way out.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{fentry, fexit, kprobe, kretprobe, sock_ops, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, SockOpsContext, TracePointContext},
};
use socklife_abi::{
    counter::Missed,
    event::{Listening, UNKNOWN_FD},
    program::Program,
};

use crate::{
    args::{Registers, arg, record, slot},
    calls::{enter, leave},
    emit::Subject,
    listeners,
    maps::{LISTENS, Listen, missed},
    mem::{Direct, Mem, Obj, Probe, off},
    probes::cookie::TCP_LISTEN,
    sock::Sock,
    task::{Task, sock_of_fd, thread},
};

#[inline(always)]
fn remember(fd: u64, backlog: u64) {
    let listen = Listen {
        fd,
        backlog: i64::from(backlog as i32),
    };
    if LISTENS.insert(thread(), listen, 0).is_err() {
        missed(Missed::CallTable);
    }
}

#[inline(always)]
fn listening<M: Mem>(sock: Option<Sock<M>>, asked: Option<Listen>, via: Program, task: Task) {
    let Some(sock) = sock else { return };
    let backlog = sock.0.get(off!(max_ack_backlog));
    if let Some(subject) = Subject::new(sock, via, task) {
        listeners::note(sock, false);
        subject.is_held();
        subject.emit(Listening {
            backlog_asked: asked.map_or(0, |asked| asked.backlog as i32),
            asked_known: u32::from(asked.is_some()),
            backlog,
            fd: asked.map_or(UNKNOWN_FD, |asked| asked.fd as i32),
        });
    }
}

/// What this thread's listen(2) asked for, once.
#[inline(always)]
fn asked() -> Option<Listen> {
    let thread = thread();
    // SAFETY: only this thread writes its entry.
    let asked = unsafe { LISTENS.get(thread) }.copied();
    let _ = LISTENS.remove(thread);
    asked
}

/// The `sk` of a `struct socket`.
#[inline(always)]
fn sk_of(socket: u64) -> u64 {
    Obj::<Probe>::new(socket as *const u8).follow(off!(socket_sk)).ptr() as u64
}

#[fentry(function = "__sys_listen")]
pub fn listen_asked_fentry(context: FEntryContext) -> i32 {
    remember(
        slot(&context, arg!(sys_listen_fd)),
        slot(&context, arg!(sys_listen_backlog)),
    );
    0
}

#[kprobe]
pub fn listen_asked_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    remember(
        registers.arg(arg!(sys_listen_fd)),
        registers.arg(arg!(sys_listen_backlog)),
    );
    0
}

#[fexit(function = "__inet_listen_sk")]
pub fn listen_fexit_sk(context: FExitContext) -> i32 {
    if slot(&context, arg!(listen_sk_ret)) as i32 == 0 {
        listening(
            Direct::tcp(slot(&context, arg!(listen_sk)) as *const u8),
            asked(),
            Program::ListenFexitSk,
            Task::current(),
        );
    }
    0
}

#[fexit(function = "inet_listen")]
pub fn listen_fexit_socket(context: FExitContext) -> i32 {
    if slot(&context, arg!(listen_socket_ret)) as i32 == 0 {
        let sk = sk_of(slot(&context, arg!(listen_socket)));
        listening(
            Probe::tcp(sk as *const u8),
            asked(),
            Program::ListenFexitSocket,
            Task::current(),
        );
    }
    0
}

#[kprobe]
pub fn listen_kprobe_sk(context: ProbeContext) -> u32 {
    enter(Registers::of(&context).arg(arg!(listen_sk)), 0);
    0
}

#[kprobe]
pub fn listen_kprobe_socket(context: ProbeContext) -> u32 {
    enter(sk_of(Registers::of(&context).arg(arg!(listen_socket))), 0);
    0
}

#[inline(always)]
fn returned(context: &RetProbeContext, via: Program) {
    let Some(call) = leave() else { return };
    if Registers::of(context).returned() as i32 == 0 {
        listening(Probe::tcp(call.object as *const u8), asked(), via, Task::current());
    }
}

at_each!(kretprobe(RetProbeContext) returned:
    listen_kretprobe_sk = ListenKretprobeSk, listen_kretprobe_socket = ListenKretprobeSocket);

#[tracepoint]
pub fn listen_asked_tp(context: TracePointContext) -> u32 {
    remember(record(&context, 16), record(&context, 24));
    0
}

#[tracepoint]
pub fn listen_tp(context: TracePointContext) -> u32 {
    let result = record(&context, 16) as i64;
    // SAFETY: only this thread writes its entry.
    let fd = unsafe { LISTENS.get(thread()) }.map(|listen| listen.fd);
    if result == 0
        && let Some(fd) = fd
    {
        listening(sock_of_fd(fd), asked(), Program::ListenTp, Task::current());
    }
    0
}

/// The first listen of a socket only, and not what was asked.
#[sock_ops]
pub fn listen_sock_ops(context: SockOpsContext) -> u32 {
    if context.op() == TCP_LISTEN {
        // SAFETY: the program's own context. Makes the cookie that the event reads.
        unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        // Read by address, the context is a `struct bpf_sock_ops_kern`.
        let sk = Obj::<Probe>::new(context.as_ptr().cast()).follow(off!(ops_sk));
        listening(Probe::tcp(sk.ptr()), None, Program::ListenSockOps, Task::walked());
    }
    1
}
