//! What is remembered of half-open connections.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns},
};
use socklife_abi::{
    counter::Missed,
    event::UNKNOWN,
    table::{Request, RequestKey},
};

use crate::{
    maps::{REQUESTS, missed},
    mem::{Mem, Obj, Probe, off},
    sock::{Req, Tuple},
};

const SECOND: u64 = 1_000_000_000;

/// Now, on the clock of events.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// In seconds.
#[inline(always)]
pub fn seconds(ns: u64) -> u32 {
    (ns / SECOND) as u32
}

/// The key of a half-open connection.
#[inline(always)]
pub fn key(tuple: &Tuple, netns: u32) -> RequestKey {
    RequestKey {
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        sport: tuple.sport,
        dport: tuple.dport,
        netns,
    }
}

/// Begins to remember. False where this very connection is half-open already.
#[inline(always)]
pub fn begin(key: &RequestKey, req: u64, now: u64) -> bool {
    let request = Request {
        queued_ns: now,
        req,
        seen_s: seconds(now),
        refusals: 0,
        synacks: 0,
        reserved: 0,
        deferred_us: 0,
        reserved2: 0,
    };
    if REQUESTS.insert(key, request, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    match REQUESTS.get_ptr_mut(key) {
        // SAFETY: a value of REQUESTS.
        Some(old) => unsafe {
            if (*old).req != req && Req::<Probe>(Obj::new((*old).req as *const u8)).is_queued() {
                // Two CPUs took the same SYN, and the other was first.
                return false;
            }
            *old = request;
        },
        None => missed(Missed::RequestTable),
    }
    true
}

/// Begins to remember one that was there before the trace; the kernel's own stamp tells since when.
#[inline(always)]
pub fn before<M: Mem>(key: &RequestKey, req: Req<M>) {
    let now = now();
    let sent_us: u64 = req.0.get(off!(req_synack_us));
    // SAFETY: takes no argument.
    let clock = unsafe { bpf_ktime_get_ns() };
    let age = clock.saturating_sub(sent_us.wrapping_mul(1000));
    let request = Request {
        queued_ns: if sent_us == 0 { 0 } else { now.saturating_sub(age) },
        req: req.key(),
        seen_s: seconds(now),
        refusals: 0,
        synacks: 1,
        reserved: 0,
        deferred_us: 0,
        reserved2: 0,
    };
    if REQUESTS.insert(key, request, u64::from(BPF_NOEXIST)).is_err() && REQUESTS.get_ptr(key).is_none() {
        missed(Missed::RequestTable);
    }
}

/// What is remembered.
#[inline(always)]
pub fn get(key: &RequestKey) -> Option<&'static mut Request> {
    // SAFETY: a value of REQUESTS; what is done to one connection at a time is done under its own lock.
    REQUESTS.get_ptr_mut(key).map(|request| unsafe { &mut *request })
}

/// Ends it: whoever gets it first tells how it ended.
#[inline(always)]
pub fn take(key: &RequestKey) -> Option<Request> {
    let request = *get(key)?;
    REQUESTS.remove(key).is_ok().then_some(request)
}

/// Nanoseconds since it joined the SYN queue, or `UNKNOWN`.
#[inline(always)]
pub fn age(request: &Request, now: u64) -> u64 {
    if request.queued_ns == 0 {
        UNKNOWN
    } else {
        now.saturating_sub(request.queued_ns)
    }
}

/// Its final ACK came now, and accept is deferred. False where that is known already.
#[inline(always)]
pub fn defer(request: &mut Request, now: u64) -> bool {
    if request.deferred_us != 0 {
        return false;
    }
    let us = now.saturating_sub(request.queued_ns) / 1000;
    request.deferred_us = if us > u64::from(u32::MAX) { u32::MAX } else { us as u32 }.max(1);
    true
}

/// Nanoseconds since accept was deferred, or `UNKNOWN`.
#[inline(always)]
pub fn deferred(request: &Request, now: u64) -> u64 {
    if request.deferred_us == 0 || request.queued_ns == 0 {
        return UNKNOWN;
    }
    now.saturating_sub(request.queued_ns + u64::from(request.deferred_us) * 1000)
}
