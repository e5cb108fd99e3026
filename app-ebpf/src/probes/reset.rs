//! RSTs: `reset_sent`, `reset_received`.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use socklife_abi::{
    event::{NO_REASON, ResetReceived, ResetSent, state},
    kernel::NO_ARG,
    program::Program,
};

use crate::{
    args::{Registers, arg, slot, tracepoint_slot},
    emit::Subject,
    lives,
    mem::{Mem as _, Obj, Probe},
    packet::{RST, Segment, is_for_us},
    probes::waiting,
    sock::Sock,
    task::Task,
};

/// Who gives a connection up: the process in whose call that happens, which holds the socket, or closes the listener over
/// it. A timer gives up, too (keepalive, orphans without memory), whoever it interrupts.
#[inline(always)]
fn who_gives_up(sock: Sock<Probe>) -> Task {
    if sock.owned_by_user() || waiting::is_closing(lives::of(sock.key(), lives::cookie(sock.key())).listener) {
        Task::current()
    } else {
        Task::NONE
    }
}

#[inline(always)]
fn sent(sk: u64, skb: u64, reason: u32, via: Program) {
    let segment = if skb == 0 {
        None
    } else {
        Segment::of(Obj::new(skb as *const u8))
    };
    let sock = Probe::tcp(sk as *const u8);
    let subject = match (sock, &segment) {
        (Some(sock), None) => Subject::new(sock, via, who_gives_up(sock)),
        // A listener answers for connections that it does not have.
        (Some(sock), Some(segment)) if sock.state() == state::LISTEN => {
            Subject::with_tuple(sock, segment.tuple, via, Task::NONE)
        }
        (Some(sock), Some(_)) => Subject::new(sock, via, Task::NONE),
        (None, Some(segment)) => Subject::of(0, segment.tuple, segment.netns, via, || 0),
        (None, None) => None,
    };
    if let Some(subject) = subject {
        subject.emit_limited(ResetSent {
            reason,
            state: sock.map_or(0, |sock| sock.state()),
            answers: u32::from(skb != 0),
            reserved: 0,
        });
    }
}

#[inline(always)]
fn told(context: &impl EbpfContext, via: Program) {
    let reason = if arg!(send_reset_reason) == NO_ARG {
        NO_REASON
    } else {
        tracepoint_slot(context, arg!(send_reset_reason)) as u32
    };
    sent(slot(context, 0), slot(context, 1), reason, via);
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn reset_sent_tp_btf(context: BtfTracePointContext) -> i32 {
    told(&context, Program::ResetSentTpBtf);
    0
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn reset_sent_raw_tp(context: RawTracePointContext) -> i32 {
    told(&context, Program::ResetSentRawTp);
    0
}

/// Where the tracepoint is silent without a socket: what the function will do is known at its entry.
#[inline(always)]
fn without_socket(sk: u64, skb: u64, via: Program) {
    if sk != 0 {
        return;
    }
    let packet = Obj::new(skb as *const u8);
    // A RST is not answered, nor is what was for another host.
    if Segment::of(packet).is_some_and(|segment| segment.flags & RST == 0) && is_for_us(packet) {
        sent(0, skb, NO_REASON, via);
    }
}

#[fentry(function = "tcp_v4_send_reset")]
pub fn reset_sent_fentry4(context: FEntryContext) -> i32 {
    without_socket(
        slot(&context, arg!(send_reset4_sk)),
        slot(&context, arg!(send_reset4_skb)),
        Program::ResetSentFentry4,
    );
    0
}

/// `tcp_v6_send_reset` takes the same.
#[fentry(function = "tcp_v6_send_reset")]
pub fn reset_sent_fentry6(context: FEntryContext) -> i32 {
    without_socket(
        slot(&context, arg!(send_reset4_sk)),
        slot(&context, arg!(send_reset4_skb)),
        Program::ResetSentFentry6,
    );
    0
}

#[inline(always)]
fn without_socket_by_kprobe(context: &ProbeContext, via: Program) {
    let registers = Registers::of(context);
    without_socket(
        registers.arg(arg!(send_reset4_sk)),
        registers.arg(arg!(send_reset4_skb)),
        via,
    );
}

at_each!(kprobe(ProbeContext) without_socket_by_kprobe:
    reset_sent_kprobe4 = ResetSentKprobe4, reset_sent_kprobe6 = ResetSentKprobe6);

#[inline(always)]
fn received(sk: u64, via: Program) {
    let Some(sock) = Probe::tcp(sk as *const u8) else {
        return;
    };
    if let Some(subject) = Subject::new(sock, via, Task::NONE) {
        subject.emit_limited(ResetReceived {
            state: sock.state(),
            unread: sock.unread(),
            unacknowledged: sock.unacknowledged(),
            reserved: 0,
        });
    }
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn reset_received_tp_btf(context: BtfTracePointContext) -> i32 {
    received(slot(&context, 0), Program::ResetReceivedTpBtf);
    0
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn reset_received_raw_tp(context: RawTracePointContext) -> i32 {
    received(slot(&context, 0), Program::ResetReceivedRawTp);
    0
}
