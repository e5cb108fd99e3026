//! The SYN queue: `syn_queued`, `synack_retransmitted`, and the ways out of it other than a handshake.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint, sock_ops},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
        SockOpsContext,
    },
};
use socklife_abi::{
    event::{BY_FASTOPEN, DEFERRED, Queues, SynackRetransmitted, UNKNOWN, ending, state},
    program::Program,
};

use crate::{
    args::{Registers, arg, slot},
    emit::Subject,
    half_open::{self, Fate},
    maps::LEARNT,
    mem::{Direct, Mem, Obj, Probe, off},
    packet::{self, Packet},
    probes::cookie::{NEEDS_ECN, RWND_INIT, TIMEOUT_INIT},
    requests,
    sock::{Req, Sock},
    softirq::{self, softirq},
    task::Task,
};

fn request<M>(req: u64) -> Req<M>
where
    M: Mem,
{
    Req(Obj::new(req as *const u8))
}

#[inline(always)]
fn joined<M: Mem>(sk: u64, req: u64, via: Program) {
    let mut syn = 0;
    if let Some(softirq) = softirq() {
        softirq.taken = softirq::JOINED;
        syn = softirq.syn_skb;
    }
    let req = request::<M>(req);
    // Another CPU may have taken the same SYN a moment before.
    if !req.is_queued() {
        return;
    }
    if let Some(listener) = M::tcp(sk as *const u8) {
        half_open::joined(listener, req, false, via);
        half_open::without_fastopen(listener, Obj::new(syn as *const u8));
    }
}

#[fexit(function = "inet_csk_reqsk_queue_hash_add")]
pub fn syn_queue_fexit(context: FExitContext) -> i32 {
    joined::<Direct>(
        slot(&context, arg!(hash_add_sk)),
        slot(&context, arg!(hash_add_req)),
        Program::SynQueueFexit,
    );
    0
}

#[kprobe]
pub fn syn_queue_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    if let Some(softirq) = softirq() {
        softirq.hash_add_listener = registers.arg(arg!(hash_add_sk));
        softirq.hash_add_req = registers.arg(arg!(hash_add_req));
    }
    0
}

#[kretprobe]
pub fn syn_queue_kretprobe(_: RetProbeContext) -> u32 {
    if let Some(softirq) = softirq() {
        joined::<Probe>(
            softirq.hash_add_listener,
            softirq.hash_add_req,
            Program::SynQueueKretprobe,
        );
    }
    0
}

/// The callbacks for a `request_sock`: it is about to join the SYN queue, or its SYN-ACK is about to be sent.
#[sock_ops]
pub fn syn_queue_sock_ops(context: SockOpsContext) -> u32 {
    let op = context.op();
    if op != TIMEOUT_INIT && op != RWND_INIT && op != NEEDS_ECN {
        return 1;
    }
    // Read by address, the context is a `struct bpf_sock_ops_kern`.
    let sk = Obj::<Probe>::new(context.as_ptr().cast()).follow(off!(ops_sk));
    // The same callbacks come for a connecting socket.
    if u32::from(sk.get(off!(state))) != state::NEW_SYN_RECV {
        return 1;
    }
    if op == RWND_INIT {
        if let Some(softirq) = softirq() {
            softirq.taken = softirq::OTHERS;
        }
        return 1;
    }
    let req = Req(sk);
    let Some(listener) = Probe::tcp(req.listener() as *const u8) else {
        return 1;
    };
    if op == TIMEOUT_INIT {
        if let Some(softirq) = softirq() {
            softirq.taken = softirq::JOINED;
            softirq.syn_listener = listener.key();
        }
        // SAFETY: the program's own context. Makes the cookie that the event reads.
        unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        half_open::joined(listener, req, true, Program::SynQueueSockOps);
    } else {
        // By now its timer runs: the only way to learn whose function that is.
        learn(req.timer_function());
        // TCP Fast Open's request never stands in the queue. One that does and is not remembered is older than the trace.
        // Its child's timer sends the SYN-ACK again: then no SYN is being taken.
        let taking = softirq().is_some_and(|softirq| softirq.taken != 0);
        let fastopen = taking && !req.is_queued() && req.retransmits() == 0;
        half_open::answered(listener, req, fastopen, Program::SynQueueSockOps);
    }
    1
}

/// The address of `reqsk_timer_handler`, which nobody needs to look up.
#[inline(always)]
pub fn learn(timer_function: u64) {
    if let Some(learnt) = LEARNT.get_ptr_mut(0) {
        // SAFETY: a word that every CPU writes the same to.
        unsafe { *learnt = timer_function }
    }
}

#[inline(always)]
fn learnt() -> u64 {
    // SAFETY: as above.
    LEARNT.get(0).copied().unwrap_or(0)
}

#[inline(always)]
fn retransmitted<M: Mem>(sk: u64, req: u64, via: Program) {
    let Some(listener) = M::tcp(sk as *const u8) else {
        return;
    };
    let req = request::<M>(req);
    if listener.state() != state::LISTEN {
        retransmitted_of_child(listener, Req(Obj::new(req.0.ptr())), via);
        return;
    }
    let (tuple, netns) = (req.tuple(listener.is_ipv6()), req.netns());
    let Some(subject) = Subject::of(listener.key(), tuple, netns, via, || req.cookie()) else {
        return;
    };
    let (half_open_ns, deferred) = match requests::get(&requests::key(&tuple, netns)) {
        Some(request) => {
            // Another one where it moved to a listener that is left (`net.ipv4.tcp_migrate_req`).
            request.req = req.key();
            (
                requests::age(request, subject.envelope.time_ns),
                request.deferred_us != 0,
            )
        }
        None => (UNKNOWN, false),
    };
    let queues = listener.queues();
    subject.emit_sampled(
        listener.key(),
        SynackRetransmitted {
            queues,
            half_open_ns,
            retransmit: req.retransmits() + 1,
            flags: if deferred { DEFERRED } else { 0 },
        },
    );
}

/// TCP Fast Open: the child is there, and its handshake is not done.
#[inline(always)]
fn retransmitted_of_child<M: Mem>(child: Sock<M>, req: Req<Probe>, via: Program) {
    let listener = Probe::tcp(req.listener() as *const u8);
    let owner = listener.map_or(0, Sock::key);
    let Some(subject) = Subject::with_owner(child, owner, via, Task::NONE) else {
        return;
    };
    subject.emit_sampled(
        owner,
        SynackRetransmitted {
            queues: listener.map_or(Queues::UNKNOWN, Sock::queues),
            half_open_ns: subject.waited(),
            retransmit: req.retransmits() + 1,
            flags: BY_FASTOPEN,
        },
    );
}

#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn synack_again_tp_btf(context: BtfTracePointContext) -> i32 {
    retransmitted::<Direct>(slot(&context, 0), slot(&context, 1), Program::SynackAgainTpBtf);
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn synack_again_raw_tp(context: RawTracePointContext) -> i32 {
    retransmitted::<Probe>(slot(&context, 0), slot(&context, 1), Program::SynackAgainRawTp);
    0
}

// The timer of a request sends the SYN-ACK again, or gives the request up.

#[inline(always)]
fn timer_entered(timer: u64) {
    let Some(softirq) = softirq() else { return };
    softirq.timer_req = 0;
    let req = Req::of_timer(timer);
    let Some(listener) = Probe::tcp(req.listener() as *const u8) else {
        return;
    };
    let key = requests::key(&req.tuple(false), req.netns());
    if requests::get(&key).is_none() {
        return;
    }
    softirq.timer_key = key;
    softirq.timer_cookie = req.cookie();
    softirq.timer_listener = listener.key();
    softirq.timer_listening = u32::from(listener.state() == state::LISTEN);
    softirq.timer_retrans = req.retransmits();
    softirq.timer_req = req.key();
}

#[inline(always)]
fn timer_returned(via: Program) {
    let Some(softirq) = softirq() else { return };
    if softirq.timer_req == 0 {
        return;
    }
    let key = softirq.timer_req;
    softirq.timer_req = 0;
    // It moved to another listener, or another has its four-tuple by now.
    if requests::get(&softirq.timer_key).is_some_and(|request| request.req != key) {
        half_open::seen(&softirq.timer_key);
        return;
    }
    let req = request::<Probe>(key);
    // Its memory may be another request's by now. One that had no cookie may have got one meanwhile, from whoever tells
    // that its SYN-ACK is sent again.
    if req.is_queued() && (softirq.timer_cookie == 0 || req.cookie() == softirq.timer_cookie) {
        half_open::seen(&softirq.timer_key);
        return;
    }
    let cause = if softirq.timer_listening != 0 {
        ending::EXPIRED
    } else {
        ending::LISTENER_CLOSED
    };
    if let Some(listener) = Probe::tcp(softirq.timer_listener as *const u8) {
        half_open::ended(
            listener,
            &softirq.timer_key,
            softirq.timer_cookie,
            cause,
            softirq.timer_retrans + 1,
            via,
        );
    }
}

#[fentry(function = "reqsk_timer_handler")]
pub fn timer_fentry(context: FEntryContext) -> i32 {
    timer_entered(slot(&context, arg!(timer)));
    0
}

#[fexit(function = "reqsk_timer_handler")]
pub fn timer_fexit(_: FExitContext) -> i32 {
    timer_returned(Program::TimerFexit);
    0
}

#[kprobe]
pub fn timer_kprobe(context: ProbeContext) -> u32 {
    timer_entered(Registers::of(&context).arg(arg!(timer)));
    0
}

#[kretprobe]
pub fn timer_kretprobe(_: RetProbeContext) -> u32 {
    timer_returned(Program::TimerKretprobe);
    0
}

/// Any timer of the machine that expires: ours are told by their function.
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn timer_raw_tp(context: RawTracePointContext) -> i32 {
    let timer = slot(&context, 0);
    let function = Obj::<Probe>::new(timer as *const u8).get(off!(timer_function));
    if function != 0 && function == learnt() {
        timer_entered(timer);
    }
    0
}

#[raw_tracepoint(tracepoint = "timer_expire_exit")]
pub fn timer_exit_raw_tp(_: RawTracePointContext) -> i32 {
    timer_returned(Program::TimerExitRawTp);
    0
}

// A segment for a half-open connection: `tcp_check_req` looks at it.

/// For a bare ACK: how long accept is deferred, in timeouts.
#[inline(always)]
fn deferred<M: Mem>(listener: Sock<M>, req: Req<M>, skb: u64) -> u32 {
    let (seq, end) = packet::sequence(Obj::new(skb as *const u8));
    if seq == end { req.deferred(listener) } else { 0 }
}

#[inline(always)]
fn checked<M: Mem>(sk: u64, skb: u64, req: u64, returned: u64, via: Program) {
    if let Some(softirq) = softirq() {
        softirq.check_req = 0;
    }
    // A child, or the listener where the ACK does not fit.
    if returned != 0 {
        return;
    }
    let Some(listener) = M::tcp(sk as *const u8) else {
        return;
    };
    let req = request::<M>(req);
    let key = requests::key(&req.tuple(false), req.netns());
    let fate = Fate {
        queued: req.is_queued(),
        listening: true,
        synacks: req.retransmits() + 1,
        deferred: deferred(listener, req, skb),
    };
    let flags = packet::flags(Obj::<M>::new(skb as *const u8));
    if half_open::dropped(listener, &key, flags, req.cookie(), fate, via)
        && let Some(softirq) = softirq()
    {
        softirq.refused_skb = skb;
    }
}

#[fentry(function = "tcp_check_req")]
pub fn check_fentry(context: FEntryContext) -> i32 {
    if let Some(softirq) = softirq() {
        softirq.check_req = slot(&context, arg!(check_req_req));
    }
    0
}

#[fexit(function = "tcp_check_req")]
pub fn check_fexit(context: FExitContext) -> i32 {
    checked::<Direct>(
        slot(&context, arg!(check_req_sk)),
        slot(&context, arg!(check_req_skb)),
        slot(&context, arg!(check_req_req)),
        slot(&context, arg!(check_req_ret)),
        Program::CheckFexit,
    );
    0
}

#[kprobe]
pub fn check_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    if let Some(softirq) = softirq() {
        softirq.check_listener = registers.arg(arg!(check_req_sk));
        softirq.check_skb = registers.arg(arg!(check_req_skb));
        softirq.check_req = registers.arg(arg!(check_req_req));
    }
    0
}

#[kretprobe]
pub fn check_kretprobe(context: RetProbeContext) -> u32 {
    if let Some(softirq) = softirq() {
        checked::<Probe>(
            softirq.check_listener,
            softirq.check_skb,
            softirq.check_req,
            Registers::of(&context).returned(),
            Program::CheckKretprobe,
        );
    }
    0
}

// Everything else that takes a request out: its listener is gone, ICMP, `ss --kill`.

#[inline(always)]
fn removed<M: Mem>(sk: u64, req: u64, via: Program) {
    let Some(softirq) = softirq() else { return };
    // Whoever called this tells more.
    if softirq.check_req == req || softirq.timer_req == req {
        return;
    }
    let Some(listener) = M::tcp(sk as *const u8) else {
        return;
    };
    let req = request::<M>(req);
    let key = requests::key(&req.tuple(false), req.netns());
    let cause = if listener.state() == state::LISTEN {
        ending::CANCELLED
    } else {
        ending::LISTENER_CLOSED
    };
    half_open::ended(listener, &key, req.cookie(), cause, req.retransmits() + 1, via);
}

#[fentry(function = "inet_csk_reqsk_queue_drop")]
pub fn removed_fentry(context: FEntryContext) -> i32 {
    removed::<Direct>(
        slot(&context, arg!(drop_sk)),
        slot(&context, arg!(drop_req)),
        Program::RemovedFentry,
    );
    0
}

#[fentry(function = "inet_csk_reqsk_queue_drop_and_put")]
pub fn removed_put_fentry(context: FEntryContext) -> i32 {
    removed::<Direct>(
        slot(&context, arg!(drop_put_sk)),
        slot(&context, arg!(drop_put_req)),
        Program::RemovedPutFentry,
    );
    0
}

/// Both functions take the same.
#[inline(always)]
fn removed_by_kprobe(context: &ProbeContext, via: Program) {
    let registers = Registers::of(context);
    removed::<Probe>(registers.arg(arg!(drop_sk)), registers.arg(arg!(drop_req)), via);
}

at_each!(kprobe(ProbeContext) removed_by_kprobe:
    removed_kprobe = RemovedKprobe, removed_put_kprobe = RemovedPutKprobe);

/// Without functions to hook: a segment was dropped, and with it perhaps the half-open connection that it was for. The
/// request itself tells whether it is still queued.
#[btf_tracepoint(function = "kfree_skb")]
pub fn dropped_tp_btf(context: BtfTracePointContext) -> i32 {
    let via = Program::DroppedTpBtf;
    let skb = slot(&context, 0);
    let Some(packet) = Packet::received(Obj::<Direct>::new(skb as *const u8)) else {
        return 0;
    };
    let key = requests::key(&packet.tuple, packet.netns);
    let Some(remembered) = requests::get(&key) else {
        return 0;
    };
    if let Some(softirq) = softirq() {
        softirq.dropped_skb = skb;
    }
    let req = request::<Probe>(remembered.req);
    if let Some(listener) = Probe::tcp(req.listener() as *const u8) {
        let fate = Fate {
            queued: req.is_queued(),
            listening: listener.state() == state::LISTEN,
            synacks: req.retransmits() + 1,
            deferred: deferred(listener, req, skb),
        };
        if half_open::dropped(listener, &key, packet.flags, req.cookie(), fate, via)
            && let Some(softirq) = softirq()
        {
            softirq.refused_skb = skb;
        }
    }
    0
}
