//! What is told of half-open connections, whichever hook saw it.

use socklife_abi::{
    event::{
        AcceptDeferred, AcceptRefused, HalfOpenEnded, REFUSED_COOKIE, REFUSED_IGNORED, REFUSED_RESET, SynQueued,
        SynackSent, Total, UNKNOWN, ending,
    },
    program::Program,
    table::RequestKey,
};

use crate::{
    emit::Subject,
    listeners,
    mem::{Mem, Obj, Probe, off},
    packet::{self, ACK, RST, SYN},
    requests::{self, now},
    sock::{Req, Sock, Tuple, accept_queue_is_full, is_v4},
};

/// The four-tuple of a key; `v6` where the listener is an IPv6 socket.
#[inline(always)]
pub fn tuple_of(key: &RequestKey, v6: bool) -> Tuple {
    let v4 = is_v4(key.saddr);
    Tuple {
        saddr: key.saddr,
        daddr: key.daddr,
        sport: key.sport,
        dport: key.dport,
        family: if v4 { 4 } else { 6 },
        mapped: v4 && v6,
    }
}

/// A request joins the SYN queue; `before` where it is not counted there yet.
#[inline(always)]
pub fn joined<M: Mem>(listener: Sock<M>, req: Req<M>, before: bool, via: Program) {
    let (tuple, netns) = (req.tuple(listener.is_ipv6()), req.netns());
    let Some(subject) = Subject::of(listener.key(), tuple, netns, via, || req.cookie()) else {
        return;
    };
    let key = requests::key(&tuple, netns);
    if !requests::begin(&key, req.key(), subject.envelope.time_ns) {
        return;
    }
    let mut queues = listener.queues();
    if before {
        queues.syn_queue += 1;
    }
    listeners::changed(listener.key(), queues);
    listeners::count_one(listener.key(), netns, Total::SynQueued);
    subject.emit_sampled(listener.key(), SynQueued { queues });
}

/// A SYN-ACK goes out: the first of its connection is told.
#[inline(always)]
pub fn answered<M: Mem>(listener: Sock<M>, req: Req<M>, fastopen: bool, via: Program) {
    let (tuple, netns) = (req.tuple(listener.is_ipv6()), req.netns());
    match requests::get(&requests::key(&tuple, netns)) {
        Some(request) if request.synacks == 0 => request.synacks = 1,
        None if fastopen => {}
        _ => return,
    }
    if let Some(subject) = Subject::of(listener.key(), tuple, netns, via, || req.cookie()) {
        let queues = listener.queues();
        subject.emit_sampled(listener.key(), SynackSent { queues });
    }
}

/// `TFO_SERVER_ENABLE`
const FASTOPEN_SERVER: u8 = 2;

/// A request joined the SYN queue for a SYN that came with data: counted where TCP Fast Open had no room for it
/// (`tcp_fastopen_queue_check`).
#[inline(always)]
pub fn without_fastopen<M: Mem>(listener: Sock<M>, syn: Obj<Probe>) {
    let limit = listener.fastopen_limit();
    if limit == 0 || listener.fastopen_queue() < limit {
        return;
    }
    let net = Obj::<Probe>::new(listener.0.ptr()).follow(off!(net));
    let (seq, end) = packet::sequence(syn);
    // The SYN takes a number itself.
    if end.wrapping_sub(seq) > 1 && net.get(off!(net_fastopen)) & FASTOPEN_SERVER != 0 {
        listeners::count_one(listener.key(), listener.netns(), Total::FastopenRefused);
    }
}

/// It left the SYN queue without a handshake, unless somebody told so before.
#[inline(always)]
pub fn ended<M: Mem>(listener: Sock<M>, key: &RequestKey, cookie: u64, cause: u32, synacks: u32, via: Program) {
    let Some(request) = requests::take(key) else {
        return;
    };
    let tuple = tuple_of(key, listener.is_ipv6());
    let Some(subject) = Subject::of(listener.key(), tuple, key.netns, via, || cookie) else {
        return;
    };
    let queues = listeners::queues(listener);
    listeners::count(
        listener.key(),
        key.netns,
        Total::HalfOpenEnded as usize + cause as usize,
    );
    subject.emit_sampled(
        listener.key(),
        HalfOpenEnded {
            queues,
            half_open_ns: requests::age(&request, subject.envelope.time_ns),
            cause,
            synacks,
            refusals: u32::from(request.refusals),
            deferred: u32::from(request.deferred_us != 0),
        },
    );
}

/// The final ACK met a full accept queue.
#[inline(always)]
fn refused<M: Mem>(listener: Sock<M>, tuple: Tuple, netns: u32, cookie: u64, how: u32, via: Program) {
    let Some(subject) = Subject::of(listener.key(), tuple, netns, via, || cookie) else {
        return;
    };
    listeners::count_one(listener.key(), netns, Total::AcceptRefused);
    let half_open_ns = match requests::get(&requests::key(&tuple, netns)) {
        Some(request) => {
            request.refusals = request.refusals.saturating_add(1);
            if request.refusals > 1 {
                return;
            }
            requests::age(request, subject.envelope.time_ns)
        }
        // One that is not remembered would be told each time.
        None if how != REFUSED_COOKIE => return,
        None => UNKNOWN,
    };
    let queues = listener.queues();
    subject.emit_sampled(
        listener.key(),
        AcceptRefused {
            queues,
            half_open_ns,
            how,
            reserved: 0,
        },
    );
}

/// The final ACK came without data, and the listener waits for data.
#[inline(always)]
fn deferred<M: Mem>(listener: Sock<M>, key: &RequestKey, cookie: u64, timeouts: u32, via: Program) {
    let Some(request) = requests::get(key) else {
        return;
    };
    let tuple = tuple_of(key, listener.is_ipv6());
    let Some(subject) = Subject::of(listener.key(), tuple, key.netns, via, || cookie) else {
        return;
    };
    if !requests::defer(request, subject.envelope.time_ns) {
        return;
    }
    listeners::count_one(listener.key(), key.netns, Total::AcceptDeferred);
    let queues = listener.queues();
    subject.emit_sampled(
        listener.key(),
        AcceptDeferred {
            queues,
            half_open_ns: requests::age(request, subject.envelope.time_ns),
            timeouts,
            reserved: 0,
        },
    );
}

/// A segment for a half-open connection was dropped: what that did to it. Returns whether it was refused for want of room.
#[inline(always)]
pub fn dropped<M: Mem>(listener: Sock<M>, key: &RequestKey, flags: u8, cookie: u64, fate: Fate, via: Program) -> bool {
    let tuple = tuple_of(key, listener.is_ipv6());
    let full = accept_queue_is_full(&listener.queues());
    let is_ack = flags & (SYN | RST | ACK) == ACK;
    if fate.queued {
        if is_ack && fate.deferred != 0 {
            deferred(listener, key, cookie, fate.deferred, via);
            return false;
        }
        if is_ack && full {
            refused(listener, tuple, key.netns, cookie, REFUSED_IGNORED, via);
        }
        return is_ack && full;
    }
    let cause = if !fate.listening {
        ending::LISTENER_CLOSED
    } else if !is_ack {
        ending::RESET
    } else if full {
        if requests::get(key).is_some() {
            refused(listener, tuple, key.netns, cookie, REFUSED_RESET, via);
        }
        ending::ACCEPT_QUEUE_FULL
    } else {
        ending::UNKNOWN
    };
    ended(listener, key, cookie, cause, fate.synacks, via);
    cause == ending::ACCEPT_QUEUE_FULL
}

/// What became of a request.
pub struct Fate {
    /// It is still in the SYN queue.
    pub queued: bool,
    /// Its listener listens.
    pub listening: bool,
    /// SYN-ACKs that were sent.
    pub synacks: u32,
    /// The segment was a bare ACK, and accept is deferred: for how many timeouts.
    pub deferred: u32,
}

/// An ACK with a valid SYN cookie met a full accept queue.
#[inline(always)]
pub fn cookie_refused<M: Mem>(listener: Sock<M>, tuple: Tuple, netns: u32, via: Program) {
    refused(listener, tuple, netns, 0, REFUSED_COOKIE, via);
}

/// Remembers a request that was there before the trace.
#[inline(always)]
pub fn before(listener: Sock<Probe>, req: Req<Probe>, via: Program) {
    let (tuple, netns) = (req.tuple(listener.is_ipv6()), req.netns());
    if Subject::of(listener.key(), tuple, netns, via, || 0).is_some() {
        requests::before(&requests::key(&tuple, netns), req);
    }
}

/// A request whose timer fired is still there.
#[inline(always)]
pub fn seen(key: &RequestKey) {
    if let Some(request) = requests::get(key) {
        request.seen_s = requests::seconds(now());
    }
}
