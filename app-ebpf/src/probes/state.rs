//! `sock:inet_sock_set_state` tells of `state`, `connected`, `connect_failed`, `established` and `closed`;
//! `tcp:tcp_destroy_sock` ends what is remembered of a socket.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use socklife_abi::{
    event::{
        CAUSE_CLOSED_BY_CALLER, CAUSE_DISCONNECTED, CAUSE_ERRNO, CAUSE_UNKNOWN, Closed, ConnectFailed, Connected,
        Established, FIN_RECEIVED, State, UNKNOWN, state,
    },
    program::Program,
};

use crate::{
    args::slot,
    emit::Subject,
    lives,
    maps::TOLD,
    mem::{Direct, Mem, Probe, off},
    sock::Sock,
    task::Task,
};

/// Both directions shut: `tcp_close` did it.
const SHUTDOWN_MASK: u8 = 3;

/// The kernel runs no program that is already running on the same CPU: a state change in softirq, or in a task that gets
/// the CPU, would be missed while the program works on another socket (`__bpf_trace_run`). So there are two programs at
/// the tracepoint, one after the other, and the second does what the first could not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

#[inline(always)]
fn changed<M: Mem>(sk: u64, oldstate: u32, newstate: u32, via: Program, turn: Turn) {
    // The child is being cloned: up to 6.12 it still wears the listener's four-tuple and cookie.
    if oldstate == state::LISTEN && newstate == state::SYN_RECV {
        return;
    }
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    let change = u64::from(oldstate) << 32 | u64::from(newstate);
    if turn == Turn::Second && told(sock.key(), change) {
        return;
    }
    let owned = sock.owned_by_user();
    let task = if owned { Task::current() } else { Task::NONE };
    let Some(subject) = Subject::new(sock, via, task) else {
        return;
    };
    // Without room for the note it is left to the second program.
    if turn == Turn::First && TOLD.insert(sock.key(), change, 0).is_err() {
        return;
    }
    subject.emit(State { oldstate, newstate });
    match (oldstate, newstate) {
        (state::SYN_SENT, state::ESTABLISHED) => subject.emit(Connected {
            handshake_ns: subject.age(),
        }),
        // Simultaneous open: both ends called connect(2).
        (state::SYN_RECV, state::ESTABLISHED) if subject.life().active != 0 => subject.emit(Connected {
            handshake_ns: subject.age(),
        }),
        (state::SYN_RECV, state::ESTABLISHED) => {
            subject.is_established();
            subject.emit(Established {});
        }
        (state::SYN_SENT, state::CLOSE) => connect_ended(&subject, sock, owned),
        (state::CLOSE | state::LISTEN, _) => {}
        // A child that the kernel made and gave up before anyone could see it.
        (state::SYN_RECV, state::CLOSE) if subject.age() == UNKNOWN => {}
        (_, state::CLOSE) => closed(&subject, sock, oldstate),
        _ => {}
    }
}

/// Whether the first program told of this change. The socket is locked: no other change of it comes in between.
#[inline(always)]
fn told(key: u64, change: u64) -> bool {
    // SAFETY: a word.
    let told = unsafe { TOLD.get(key) }.copied() == Some(change);
    let _ = TOLD.remove(key);
    told
}

#[inline(always)]
fn connect_ended<M: Mem>(subject: &Subject, sock: Sock<M>, owned: bool) {
    let errno = sock.err();
    let cause = if errno != 0 {
        CAUSE_ERRNO
    } else if sock.shutdown() == SHUTDOWN_MASK {
        CAUSE_CLOSED_BY_CALLER
    } else if subject.life().active == 0 {
        // No SYN was sent: the hooks at connect(2) tell why.
        return;
    } else if owned {
        CAUSE_DISCONNECTED
    } else {
        CAUSE_UNKNOWN
    };
    subject.emit(ConnectFailed {
        elapsed_ns: subject.age(),
        errno,
        cause,
    });
}

#[inline(always)]
fn closed<M: Mem>(subject: &Subject, sock: Sock<M>, oldstate: u32) {
    subject.emit(Closed {
        lifetime_ns: subject.age(),
        bytes_received: sock.0.get(off!(bytes_received)),
        bytes_sent: sock.0.get(off!(bytes_sent)),
        bytes_retrans: sock.0.get(off!(bytes_retrans)),
        segs_in: sock.0.get(off!(segs_in)),
        segs_out: sock.0.get(off!(segs_out)),
        retransmits: sock.0.get(off!(total_retrans)),
        srtt_us8: sock.0.get(off!(srtt_us)),
        oldstate,
        errno: sock.err(),
        flags: if sock.fin_received() { FIN_RECEIVED } else { 0 },
        reserved: 0,
    });
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_tp_btf(context: BtfTracePointContext) -> i32 {
    entered::<Direct>(&context, Program::StateTpBtf, Turn::First)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_tp_btf_second(context: BtfTracePointContext) -> i32 {
    entered::<Direct>(&context, Program::StateTpBtfSecond, Turn::Second)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_raw_tp(context: RawTracePointContext) -> i32 {
    entered::<Probe>(&context, Program::StateRawTp, Turn::First)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_raw_tp_second(context: RawTracePointContext) -> i32 {
    entered::<Probe>(&context, Program::StateRawTpSecond, Turn::Second)
}

#[inline(always)]
fn entered<M: Mem>(context: &impl EbpfContext, via: Program, turn: Turn) -> i32 {
    changed::<M>(
        slot(context, 0),
        slot(context, 1) as u32,
        slot(context, 2) as u32,
        via,
        turn,
    );
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_tp_btf(context: BtfTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast())
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_tp_btf_second(context: BtfTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast())
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy_raw_tp(context: RawTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast())
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy_raw_tp_second(context: RawTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast())
}

/// Twice for the reason that [`Turn`] tells; to forget twice does no harm.
#[inline(always)]
fn destroyed(arguments: *const u64) -> i32 {
    // SAFETY: the tracepoint's one argument.
    let key = unsafe { arguments.read_volatile() };
    let _ = TOLD.remove(key);
    lives::forget(key);
    0
}
