//! The way into the accept queue: `accept_queued`, and `cookie_accepted` in front of it.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{fentry, kprobe, sock_ops},
    programs::{FEntryContext, ProbeContext, SockOpsContext},
};
use socklife_abi::{
    event::{AcceptQueued, BY_COOKIE, BY_FASTOPEN, CookieAccepted, Queues, Total, UNKNOWN, state},
    program::Program,
    table::Request,
};

use crate::{
    args::{Registers, arg, slot},
    emit::Subject,
    listeners, lives,
    mem::{Direct, Mem, Obj, Probe, off},
    probes::cookie::PASSIVE_ESTABLISHED,
    requests,
    sock::{Req, Sock},
    softirq::{self, softirq},
    task::Task,
};

/// What is known of the child's way.
struct Way {
    listener: u64,
    queues: Queues,
    request: Option<Request>,
    flags: u32,
    /// It is put into the queue now, not a moment ago.
    now: bool,
}

#[inline(always)]
fn queued<M: Mem>(child: Sock<M>, way: &Way, via: Program) {
    let Some(subject) = Subject::with_owner(child, way.listener, via, Task::NONE) else {
        // Remembered when it was made, before anyone could tell.
        lives::forget(child.key());
        return;
    };
    let queued_ns = subject.is_queued(way.listener, way.now);
    listeners::changed(way.listener, way.queues);
    let netns = subject.envelope.netns;
    if way.flags & BY_COOKIE != 0 {
        listeners::count_one(way.listener, netns, Total::CookieAccepted);
        listeners::count_one(way.listener, netns, Total::CookieReceived);
        subject.emit(CookieAccepted { queues: way.queues });
    }
    listeners::count_one(way.listener, netns, Total::AcceptQueued);
    let (half_open_ns, deferred_ns, refusals) = match &way.request {
        Some(request) => (
            requests::age(request, queued_ns),
            requests::deferred(request, queued_ns),
            u32::from(request.refusals),
        ),
        None => (UNKNOWN, UNKNOWN, 0),
    };
    subject.emit(AcceptQueued {
        queues: way.queues,
        half_open_ns,
        deferred_ns,
        flags: way.flags,
        refusals,
    });
}

/// `inet_csk_complete_hashdance`: the request leaves the SYN queue and the child joins the accept queue. At its entry,
/// because at its return another CPU may have accepted the child already.
#[inline(always)]
fn completed<M: Mem>(sk: u64, child: u64, req: u64, own_req: u64, via: Program) {
    // Another CPU was first with the same ACK.
    if own_req as u8 == 0 {
        return;
    }
    let (Some(listener), Some(child)) = (M::tcp(sk as *const u8), M::tcp(child as *const u8)) else {
        return;
    };
    let req = Req(Obj::<M>::new(req as *const u8));
    let key = requests::key(&req.tuple(false), req.netns());
    let mut queues = listener.queues();
    queues.syn_queue = queues.syn_queue.saturating_sub(1);
    queues.accept_queue += 1;
    let way = Way {
        listener: listener.key(),
        queues,
        request: requests::take(&key),
        flags: 0,
        now: true,
    };
    queued(child, &way, via);
}

#[fentry(function = "inet_csk_complete_hashdance")]
pub fn completed_fentry(context: FEntryContext) -> i32 {
    completed::<Direct>(
        slot(&context, arg!(hashdance_sk)),
        slot(&context, arg!(hashdance_child)),
        slot(&context, arg!(hashdance_req)),
        slot(&context, arg!(hashdance_own_req)),
        Program::CompletedFentry,
    );
    0
}

#[kprobe]
pub fn completed_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    completed::<Probe>(
        registers.arg(arg!(hashdance_sk)),
        registers.arg(arg!(hashdance_child)),
        registers.arg(arg!(hashdance_req)),
        registers.arg(arg!(hashdance_own_req)),
        Program::CompletedKprobe,
    );
    0
}

/// Notes who gets the child, for those that come without a request; the callback below tells of them.
#[inline(always)]
fn adding(listener: u64, child: u64) {
    if let Some(softirq) = softirq() {
        softirq.queue_listener = listener;
        softirq.queue_child = child;
    }
}

#[fentry(function = "inet_csk_reqsk_queue_add")]
pub fn adding_fentry(context: FEntryContext) -> i32 {
    adding(
        slot(&context, arg!(queue_add_sk)),
        slot(&context, arg!(queue_add_child)),
    );
    0
}

#[kprobe]
pub fn adding_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    adding(registers.arg(arg!(queue_add_sk)), registers.arg(arg!(queue_add_child)));
    0
}

/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`: every child, also one of a cookie or of TCP Fast Open.
#[sock_ops]
pub fn accept_queue_sock_ops(context: SockOpsContext) -> u32 {
    if context.op() != PASSIVE_ESTABLISHED {
        return 1;
    }
    // SAFETY: the program's own context. Makes the cookie that the event reads.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    // Read by address, the context is a `struct bpf_sock_ops_kern`.
    let sk = Obj::<Probe>::new(context.as_ptr().cast()).follow(off!(ops_sk));
    if let Some(child) = Probe::tcp(sk.ptr()) {
        established(child);
    }
    1
}

#[inline(always)]
fn established(child: Sock<Probe>) {
    // What a process made is in no queue: the callback comes for a simultaneous open as well, and for a subflow that joins.
    if lives::of(child.key(), lives::cookie(child.key())).queued != 0 || child.is_grafted() {
        return;
    }
    let (tuple, netns) = (child.tuple(), child.netns());
    let request = requests::take(&requests::key(&tuple, netns));
    let fastopen = Req::<Probe>(Obj::new(child.fastopen() as *const u8));
    let (listener, mut flags) = match &request {
        Some(request) => {
            let own = Probe::tcp(Req::<Probe>(Obj::new(request.req as *const u8)).listener() as *const u8);
            // Where its own is closed another took it in (`net.ipv4.tcp_migrate_req`).
            let own = own.filter(|listener| listener.state() == state::LISTEN);
            (own.or_else(|| by_address(child)), 0)
        }
        None if fastopen.key() != 0 => (Probe::tcp(fastopen.listener() as *const u8), BY_FASTOPEN),
        None => (by_address(child), 0),
    };
    let mut queues = Queues::UNKNOWN;
    if let Some(listener) = listener {
        queues = listener.queues();
        if flags & BY_FASTOPEN != 0 {
            // It is queued a moment later.
            queues.accept_queue += 1;
        } else if request.is_none() && listener.sent_cookies() {
            flags = BY_COOKIE;
        }
    }
    if flags & BY_FASTOPEN != 0
        && let Some(softirq) = softirq()
    {
        softirq.taken = softirq::OTHERS;
    }
    let way = Way {
        listener: listener.map_or(0, Sock::key),
        queues,
        request,
        flags,
        now: false,
    };
    queued(child, &way, Program::AcceptQueueSockOps);
}

/// The listener of a child that comes without a request: as noted, or the only one on that address.
#[inline(always)]
fn by_address(child: Sock<Probe>) -> Option<Sock<Probe>> {
    if let Some(softirq) = softirq()
        && softirq.queue_child == child.key()
    {
        return Probe::tcp(softirq.queue_listener as *const u8);
    }
    listeners::at(&child.tuple(), child.netns())
}
