//! accept(2): `accepted`.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use socklife_abi::{
    event::{Accepted, Queues, Total, state},
    program::Program,
};

use crate::{
    args::{Registers, arg, record, slot},
    calls::{enter, leave},
    emit::Subject,
    listeners,
    maps::global,
    mem::{Direct, Mem, Probe},
    sock::Sock,
    task::{Task, sock_of_fd},
    twice::first,
};

#[inline(always)]
fn accepted<M: Mem, L: Mem>(child: Sock<M>, listener: Option<Sock<L>>, fd: i32, via: Program) {
    let Some(subject) = Subject::new(child, via, Task::current()) else {
        return;
    };
    match listener {
        Some(listener) => taken(&subject, listener.key(), listeners::queues(listener), fd),
        None => remembered(&subject, fd),
    }
}

/// By the listener that the child is remembered to come from.
#[inline(always)]
fn remembered(subject: &Subject, fd: i32) {
    let listener = subject.life().listener;
    match Probe::tcp(listener as *const u8) {
        Some(sock) if sock.state() == state::LISTEN => taken(subject, listener, listeners::queues(sock), fd),
        _ => taken(subject, 0, Queues::UNKNOWN, fd),
    }
}

#[inline(always)]
fn taken(subject: &Subject, listener: u64, queues: Queues, fd: i32) {
    subject.is_accepted(listener);
    subject.is_held();
    listeners::count_one(listener, subject.envelope.netns, Total::Accepted);
    subject.emit(Accepted {
        queues,
        accept_wait_ns: subject.waited(),
        fd,
        reserved: 0,
    });
}

#[inline(always)]
fn returned(context: &FExitContext, via: Program) -> i32 {
    // Null: nobody waits, or a signal came.
    let Some(child) = Direct::tcp(slot(context, arg!(accept_ret)) as *const u8) else {
        return 0;
    };
    if first(child.key(), Program::AcceptFexit, via) {
        let listener = Direct::tcp(slot(context, arg!(accept_sk)) as *const u8);
        accepted(child, listener, -1, via);
    }
    0
}

#[fexit(function = "inet_csk_accept")]
pub fn accept_fexit(context: FExitContext) -> i32 {
    returned(&context, Program::AcceptFexit)
}

#[fexit(function = "inet_csk_accept")]
pub fn accept_fexit_second(context: FExitContext) -> i32 {
    returned(&context, Program::AcceptFexitSecond)
}

#[kprobe]
pub fn accept_kprobe(context: ProbeContext) -> u32 {
    enter(Registers::of(&context).arg(arg!(accept_sk)), 0);
    0
}

#[kretprobe]
pub fn accept_kretprobe(context: RetProbeContext) -> u32 {
    let listener = leave().map_or(0, |call| call.object);
    let Some(child) = Probe::tcp(Registers::of(&context).returned() as *const u8) else {
        return 0;
    };
    let listener = Probe::tcp(listener as *const u8);
    accepted(child, listener, -1, Program::AcceptKretprobe);
    0
}

/// The listener behind the descriptor that the system call named.
#[inline(always)]
fn listener_of(fd: u64) -> Option<Sock<Probe>> {
    match sock_of_fd(fd) {
        Some(listener) if listener.state() == state::LISTEN => Some(listener),
        // Closed meanwhile, or a 32-bit caller, whose arguments are elsewhere.
        _ => None,
    }
}

/// The exit no longer knows which listener it was.
#[inline(always)]
fn call_entered(context: &TracePointContext, _: Program) {
    enter(record(context, 16), 0);
}

#[inline(always)]
fn call_returned(context: &TracePointContext, via: Program) {
    let fd = record(context, 16) as i64;
    // Absent for a call that was waiting before we attached.
    let listener = leave();
    if fd >= 0
        && let Some(child) = sock_of_fd(fd as u64)
    {
        let listener = listener.and_then(|call| listener_of(call.object));
        accepted(child, listener, fd as i32, via);
    }
}

at_each!(tracepoint(TracePointContext) call_entered:
    accept_enter_tp = AcceptEnterTp, accept4_enter_tp = Accept4EnterTp);
at_each!(tracepoint(TracePointContext) call_returned: accept_tp = AcceptTp, accept4_tp = Accept4Tp);

/// `raw_syscalls:sys_exit`: runs at every system call of the machine, needs no tracefs.
#[btf_tracepoint(function = "sys_exit")]
pub fn accept_tp_btf(context: BtfTracePointContext) -> i32 {
    let fd = slot(&context, 1) as i64;
    if fd < 0 {
        return 0;
    }
    let registers = Registers::at(slot(&context, 0) as *const u8);
    let number = registers.syscall() as u32;
    if number != global!(CONFIG.nr_accept) && number != global!(CONFIG.nr_accept4) {
        return 0;
    }
    if let Some(child) = sock_of_fd(fd as u64) {
        let listener = listener_of(registers.syscall_arg0());
        accepted(child, listener, fd as i32, Program::AcceptTpBtf);
    }
    0
}

// A call that was waiting in accept(2) when we attached returns past the hooks above, and so does one for which a
// kretprobe had no slot left (`maxactive`). Every accept passes `security_sock_graft` a moment later.

#[inline(always)]
fn late<M: Mem>(sk: u64, via: Program) {
    let Some(child) = M::tcp(sk as *const u8) else {
        return;
    };
    // MPTCP grafts subflows that nobody accepted.
    if child.is_mptcp() {
        return;
    }
    let Some(subject) = Subject::new(child, via, Task::current()) else {
        return;
    };
    let life = subject.life();
    if (life.established | life.queued) != 0 && life.accepted == 0 {
        remembered(&subject, -1);
    }
}

#[fentry(function = "security_sock_graft")]
pub fn accept_late_fentry(context: FEntryContext) -> i32 {
    late::<Direct>(slot(&context, arg!(graft_sk)), Program::AcceptLateFentry);
    0
}

/// What the first told is accepted by now.
#[fentry(function = "security_sock_graft")]
pub fn accept_late_fentry_second(context: FEntryContext) -> i32 {
    late::<Direct>(slot(&context, arg!(graft_sk)), Program::AcceptLateFentrySecond);
    0
}

#[kprobe]
pub fn accept_late_kprobe(context: ProbeContext) -> u32 {
    late::<Probe>(Registers::of(&context).arg(arg!(graft_sk)), Program::AcceptLateKprobe);
    0
}
