//! What becomes of a SYN: `syn_refused`, `cookie_sent`, `synack_sent`.
//!
//! A SYN that is refused is neither an error nor a drop for the kernel: `tcp_conn_request` returns 0 and the segment is
//! freed as if it had been used up. So each thing that can become of a SYN leaves a note, and where there is none at the
//! end the SYN was refused.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use socklife_abi::{
    event::{CookieSent, Queues, SynRefused, Total, refusal},
    program::Program,
};

use crate::{
    args::{Registers, arg, slot},
    emit::Subject,
    half_open, listeners,
    mem::{Direct, Mem, Obj, Probe, off},
    packet::{self, Packet},
    sock::{Req, Sock, Tuple, accept_queue_is_full},
    softirq::{self, softirq},
};

/// `enum tcp_synack_type`.
const FASTOPEN: u32 = 1;
const COOKIE: u32 = 2;

/// Why `tcp_conn_request` refuses, in the order in which it asks.
#[inline(always)]
fn cause<M: Mem>(listener: Sock<M>, queues: &Queues, no_memory: bool) -> u32 {
    let no_cookies = listener.syncookies() == 0;
    let limit = queues.accept_queue_limit;
    let backlog = listener.0.follow(off!(net)).get(off!(net_max_syn_backlog));
    if no_cookies && queues.syn_queue > limit {
        refusal::SYN_QUEUE_FULL
    } else if accept_queue_is_full(queues) {
        refusal::ACCEPT_QUEUE_FULL
    } else if no_memory {
        refusal::NO_MEMORY
    } else if no_cookies && backlog.saturating_sub(queues.syn_queue) < backlog >> 2 {
        refusal::MAX_SYN_BACKLOG
    } else if no_cookies && queues.syn_queue >= limit {
        // 5.10: full is as many as the limit.
        refusal::SYN_QUEUE_FULL
    } else {
        refusal::OTHER
    }
}

#[inline(always)]
fn refused<M: Mem>(listener: Sock<M>, packet: &Packet, queues: Queues, no_memory: bool, via: Program) {
    let mut tuple = packet.tuple;
    tuple.mapped = tuple.family == 4 && listener.is_ipv6();
    let Some(subject) = Subject::of(listener.key(), tuple, packet.netns, via, || 0) else {
        return;
    };
    let cause = cause(listener, &queues, no_memory);
    listeners::changed(listener.key(), queues);
    listeners::count(
        listener.key(),
        packet.netns,
        Total::SynRefused as usize + cause as usize,
    );
    if cause == refusal::ACCEPT_QUEUE_FULL && wants_cookie(listener, &queues) {
        // Counted by `tcp_syn_flood_action`, before the accept queue is looked at.
        listeners::count_one(listener.key(), packet.netns, Total::CookieMode);
    }
    subject.emit_sampled(
        listener.key(),
        SynRefused {
            queues,
            cause,
            reserved: 0,
        },
    );
}

/// Whether a SYN that finds the queues like this is to be answered with a cookie.
#[inline(always)]
fn wants_cookie<M: Mem>(listener: Sock<M>, queues: &Queues) -> bool {
    match listener.syncookies() {
        0 => false,
        2 => true,
        _ => queues.syn_queue > queues.accept_queue_limit,
    }
}

#[inline(always)]
fn cookie_sent<M: Mem>(listener: Sock<M>, tuple: Tuple, netns: u32, via: Program) {
    let Some(subject) = Subject::of(listener.key(), tuple, netns, via, || 0) else {
        return;
    };
    let queues = listeners::queues(listener);
    listeners::count_one(listener.key(), netns, Total::CookieSent);
    listeners::count_one(listener.key(), netns, Total::CookieMode);
    subject.emit_sampled(listener.key(), CookieSent { queues });
}

#[inline(always)]
fn entered<M: Mem>(sk: u64, skb: u64) {
    let (Some(listener), Some(softirq)) = (M::tcp(sk as *const u8), softirq()) else {
        return;
    };
    softirq.syn_queues = listener.queues();
    softirq.syn_listener = sk;
    softirq.syn_skb = skb;
    softirq.taken = 0;
    softirq.no_memory = 0;
}

#[inline(always)]
fn returned<M: Mem>(sk: u64, skb: u64, via: Program) {
    let Some(softirq) = softirq() else { return };
    if softirq.taken != 0 {
        return;
    }
    let (Some(listener), Some(packet)) = (
        M::tcp(sk as *const u8),
        Packet::received(Obj::<M>::new(skb as *const u8)),
    ) else {
        return;
    };
    refused(listener, &packet, softirq.syn_queues, softirq.no_memory != 0, via);
}

#[fentry(function = "tcp_conn_request")]
pub fn syn_fentry(context: FEntryContext) -> i32 {
    entered::<Direct>(
        slot(&context, arg!(conn_request_sk)),
        slot(&context, arg!(conn_request_skb)),
    );
    0
}

#[fexit(function = "tcp_conn_request")]
pub fn syn_fexit(context: FExitContext) -> i32 {
    returned::<Direct>(
        slot(&context, arg!(conn_request_sk)),
        slot(&context, arg!(conn_request_skb)),
        Program::SynFexit,
    );
    0
}

#[kprobe]
pub fn syn_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    entered::<Probe>(
        registers.arg(arg!(conn_request_sk)),
        registers.arg(arg!(conn_request_skb)),
    );
    0
}

#[kretprobe]
pub fn syn_kretprobe(_: RetProbeContext) -> u32 {
    if let Some(softirq) = softirq() {
        returned::<Probe>(softirq.syn_listener, softirq.syn_skb, Program::SynKretprobe);
    }
    0
}

#[inline(always)]
fn allocated(request: u64) {
    if request == 0
        && let Some(softirq) = softirq()
    {
        softirq.no_memory = 1;
    }
}

#[fexit(function = "inet_reqsk_alloc")]
pub fn syn_alloc_fexit(context: FExitContext) -> i32 {
    allocated(slot(&context, arg!(reqsk_alloc_ret)));
    0
}

#[kretprobe]
pub fn syn_alloc_kretprobe(context: RetProbeContext) -> u32 {
    allocated(Registers::of(&context).returned());
    0
}

#[inline(always)]
fn answered<M: Mem>(sk: u64, req: u64, kind: u32, via: Program) {
    let Some(listener) = M::tcp(sk as *const u8) else {
        return;
    };
    let req = Req(Obj::<M>::new(req as *const u8));
    if kind == COOKIE {
        if let Some(softirq) = softirq() {
            softirq.taken = softirq::OTHERS;
        }
        cookie_sent(listener, req.tuple(listener.is_ipv6()), req.netns(), via);
    } else {
        half_open::answered(listener, req, kind == FASTOPEN, via);
    }
}

#[fentry(function = "tcp_make_synack")]
pub fn synack_fentry(context: FEntryContext) -> i32 {
    answered::<Direct>(
        slot(&context, arg!(synack_sk)),
        slot(&context, arg!(synack_req)),
        slot(&context, arg!(synack_type)) as u32,
        Program::SynackFentry,
    );
    0
}

#[kprobe]
pub fn synack_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    answered::<Probe>(
        registers.arg(arg!(synack_sk)),
        registers.arg(arg!(synack_req)),
        registers.arg(arg!(synack_type)) as u32,
        Program::SynackKprobe,
    );
    0
}

/// Without functions to hook: a SYN that a listener is done with, and nothing became of it.
#[btf_tracepoint(function = "consume_skb")]
pub fn syn_consumed_tp_btf(context: BtfTracePointContext) -> i32 {
    let via = Program::SynConsumedTpBtf;
    let skb = Obj::<Direct>::new(slot(&context, 0) as *const u8);
    let Some(packet) = Packet::received(skb) else { return 0 };
    if packet.flags & (packet::SYN | packet::ACK | packet::RST | packet::FIN) != packet::SYN {
        return 0;
    }
    let Some(softirq) = softirq() else { return 0 };
    if softirq.taken != 0 {
        if softirq.taken == softirq::JOINED
            && let Some(listener) = Probe::tcp(softirq.syn_listener as *const u8)
        {
            half_open::without_fastopen(listener, Obj::new(skb.ptr()));
        }
        softirq.taken = 0;
        return 0;
    }
    let Some(listener) = listeners::at(&packet.tuple, packet.netns) else {
        unknown_listener(&packet, via);
        return 0;
    };
    let queues = listener.queues();
    if !accept_queue_is_full(&queues) && wants_cookie(listener, &queues) {
        let mut tuple = packet.tuple;
        tuple.mapped = tuple.family == 4 && listener.is_ipv6();
        cookie_sent(listener, tuple, packet.netns, via);
    } else {
        refused(listener, &packet, queues, false, via);
    }
    0
}

/// Several listeners share the address, or the one that has it is not known.
#[inline(always)]
fn unknown_listener(packet: &Packet, via: Program) {
    if !listeners::is_shared(&packet.tuple, packet.netns) {
        return;
    }
    if let Some(subject) = Subject::of(0, packet.tuple, packet.netns, via, || 0) {
        listeners::count(0, packet.netns, Total::SynRefused as usize + refusal::OTHER as usize);
        subject.emit(SynRefused {
            queues: Queues::UNKNOWN,
            cause: refusal::OTHER,
            reserved: 0,
        });
    }
}
