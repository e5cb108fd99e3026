//! What is counted of listeners and of network namespaces, and who listens where.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{
    counter::Missed,
    event::{Listener, Queues, TOTALS, Total, state},
    program::Program,
    table::{ListenKey, Listening, Tally},
};

use crate::{
    emit::Subject,
    maps::{LISTENERS, LISTENING, NAMESPACES, add, missed},
    mem::{Mem, Probe, off},
    sock::{Sock, Tuple, v4},
};

/// A value to begin with; too large for the stack.
static NOTHING: Tally = Tally {
    queues: Queues::UNKNOWN,
    totals: NO_TOTALS,
    saddr: [0; 2],
    inode: 0,
    sport: 0,
    family: 0,
    before: 0,
    netns: 0,
    second: 0,
    shown: 0,
    fastopen_queue: 0,
    fastopen_queue_limit: 0,
};

const NO_TOTALS: [u64; TOTALS] = [0; TOTALS];
static ZERO: [u64; TOTALS] = NO_TOTALS;

/// Begins to count a listener, unless it is counted already.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied onto the stack, which has no room for it"
)]
pub fn note<M: Mem>(listener: Sock<M>, before: bool) {
    let tuple = listener.tuple();
    let netns = listener.netns();
    let key = listener.key();
    if let Some(there) = LISTENERS.get_ptr(key) {
        // SAFETY: a value of LISTENERS.
        let there = unsafe { &*there };
        // Another socket's, whose end nobody saw and nobody began anew after; or this one has another address since.
        if there.sport != tuple.sport || there.netns != netns || there.saddr != tuple.saddr {
            unlist(key, there);
            let _ = LISTENERS.remove(key);
        }
    }
    let new = LISTENERS.insert(key, &NOTHING, u64::from(BPF_NOEXIST)).is_ok();
    let Some(tally) = LISTENERS.get_ptr_mut(key) else {
        missed(Missed::ListenerTable);
        return;
    };
    // SAFETY: a value of LISTENERS.
    unsafe {
        (*tally).queues = listener.queues();
        (*tally).fastopen_queue = listener.fastopen_queue();
        (*tally).fastopen_queue_limit = listener.fastopen_limit();
        if !new {
            return;
        }
        // In this order: whoever reads the table meanwhile knows by the last that all of it is there.
        (&raw mut (*tally).saddr).write_volatile(tuple.saddr);
        (&raw mut (*tally).inode).write_volatile(listener.inode());
        (&raw mut (*tally).sport).write_volatile(tuple.sport);
        (&raw mut (*tally).family).write_volatile(tuple.family);
        (&raw mut (*tally).before).write_volatile(u8::from(before));
        (&raw mut (*tally).netns).write_volatile(netns);
    }
    let address = ListenKey {
        saddr: tuple.saddr,
        netns,
        sport: u32::from(tuple.sport),
    };
    match LISTENING.get_ptr_mut(address) {
        // SAFETY: a value of LISTENING.
        Some(there) => unsafe {
            (*there).sk = key;
            add(&raw mut (*there).count, 1);
        },
        None => {
            if LISTENING.insert(address, Listening { sk: key, count: 1 }, 0).is_err() {
                missed(Missed::ListenerTable);
            }
        }
    }
}

/// The listener's queues, now: of the event, and for the table.
#[inline(always)]
pub fn queues<M: Mem>(listener: Sock<M>) -> Queues {
    let queues = listener.queues();
    changed(listener.key(), queues);
    queues
}

/// The listener is looked at: its queues are what they are now.
#[inline(always)]
pub fn refresh(listener: Sock<Probe>) {
    let (tuple, netns) = (listener.tuple(), listener.netns());
    if let Some(tally) = LISTENERS.get_ptr_mut(listener.key()) {
        // SAFETY: a value of LISTENERS.
        unsafe {
            // Another socket may be at this address by now.
            if (*tally).sport == tuple.sport && (*tally).netns == netns {
                (*tally).queues = listener.queues();
                (*tally).fastopen_queue = listener.fastopen_queue();
                (*tally).fastopen_queue_limit = listener.fastopen_limit();
            }
        }
    }
}

/// The listener's queues are these now.
#[inline(always)]
pub fn changed(listener: u64, queues: Queues) {
    if let Some(tally) = LISTENERS.get_ptr_mut(listener) {
        // SAFETY: a value of LISTENERS; a figure that another CPU writes is as new.
        unsafe { (*tally).queues = queues }
    }
}

/// A child left the accept queue of a listener that is being closed.
#[inline(always)]
pub fn left(listener: u64) {
    if let Some(tally) = LISTENERS.get_ptr_mut(listener) {
        // SAFETY: a value of LISTENERS; one thread closes it.
        unsafe { (*tally).queues.accept_queue = (*tally).queues.accept_queue.saturating_sub(1) }
    }
}

/// Counts something of a listener, or of one that nobody knows (0), in a namespace.
#[inline(always)]
pub fn count(listener: u64, netns: u32, total: usize) {
    change(listener, netns, total, 1);
}

/// Takes back what was counted.
#[inline(always)]
pub fn uncount(listener: u64, netns: u32, total: Total) {
    change(listener, netns, total as usize, u64::MAX);
}

#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied onto the stack, which has no room for it"
)]
fn change(listener: u64, netns: u32, total: usize, by: u64) {
    if total >= TOTALS {
        return;
    }
    if listener != 0
        && let Some(tally) = LISTENERS.get_ptr_mut(listener)
    {
        // SAFETY: within the value.
        add(unsafe { (&raw mut (*tally).totals).cast::<u64>().add(total) }, by);
    }
    if NAMESPACES.get_ptr(netns).is_none() {
        // Another CPU may have been first, which is as good.
        let _ = NAMESPACES.insert(netns, &ZERO, u64::from(BPF_NOEXIST));
    }
    match NAMESPACES.get_ptr_mut(netns) {
        // SAFETY: within the value.
        Some(totals) => add(unsafe { totals.cast::<u64>().add(total) }, by),
        None => missed(Missed::ListenerTable),
    }
}

/// The same for a figure of its own.
#[inline(always)]
pub fn count_one(listener: u64, netns: u32, total: Total) {
    count(listener, netns, total as usize);
}

/// Who is found by a packet to this address.
#[inline(always)]
fn found(tuple: &Tuple, netns: u32) -> Option<Listening> {
    if let Some(there) = on(tuple.saddr, tuple.sport, netns) {
        return Some(there);
    }
    if tuple.family == 4
        && let Some(there) = on(v4(0), tuple.sport, netns)
    {
        return Some(there);
    }
    on([0, 0], tuple.sport, netns)
}

/// The listener that a packet to this address finds, where it is but one.
#[inline(always)]
pub fn at(tuple: &Tuple, netns: u32) -> Option<Sock<Probe>> {
    let there = found(tuple, netns)?;
    if there.count > 1 {
        return None;
    }
    let listener = Probe::tcp(there.sk as *const u8)?;
    // What is there may be another by now.
    let listens = listener.state() == state::LISTEN && listener.0.get(off!(num)) == tuple.sport;
    (listens && listener.netns() == netns).then_some(listener)
}

/// Whether several listeners share this address.
#[inline(always)]
pub fn is_shared(tuple: &Tuple, netns: u32) -> bool {
    found(tuple, netns).is_some_and(|there| there.count > 1)
}

#[inline(always)]
fn on(saddr: [u64; 2], sport: u16, netns: u32) -> Option<Listening> {
    let key = ListenKey {
        saddr,
        netns,
        sport: u32::from(sport),
    };
    // SAFETY: two words; the listener behind them is looked at with care.
    unsafe { LISTENING.get(key) }.copied()
}

/// A listener is gone: tells what was counted, and forgets it. By itself, for its stack.
#[inline(never)]
pub fn forget(key: u64, via: Program) {
    let Some(tally) = LISTENERS.get_ptr(key) else {
        return;
    };
    // SAFETY: a value of LISTENERS.
    let tally = unsafe { &*tally };
    let tuple = Tuple {
        saddr: tally.saddr,
        daddr: [0; 2],
        sport: tally.sport,
        dport: 0,
        family: tally.family,
        mapped: false,
    };
    if let Some(subject) = Subject::of(key, tuple, tally.netns, via, || tally.queues.listener) {
        subject.emit_in_place(|slot: *mut Listener| {
            // SAFETY: it is there to be written, and each of its fields is.
            unsafe {
                (*slot).queues = tally.queues;
                for (total, counted) in tally.totals.iter().enumerate() {
                    // By volatile words: a memcpy is a byte at a time.
                    (&raw mut (*slot).totals)
                        .cast::<u64>()
                        .add(total)
                        .write_volatile(*counted);
                }
                (*slot).inode = tally.inode;
                (*slot).before = u32::from(tally.before);
                (*slot).fastopen_queue = tally.fastopen_queue;
                (*slot).fastopen_queue_limit = tally.fastopen_queue_limit;
                (*slot).reserved = 0;
            }
        });
    }
    unlist(key, tally);
    let _ = LISTENERS.remove(key);
}

/// One less listens at its address.
#[inline(always)]
fn unlist(key: u64, tally: &Tally) {
    let address = ListenKey {
        saddr: tally.saddr,
        netns: tally.netns,
        sport: u32::from(tally.sport),
    };
    if let Some(there) = LISTENING.get_ptr_mut(address) {
        // SAFETY: a value of LISTENING.
        let last = unsafe { (*there).count } <= 1;
        if last {
            let _ = LISTENING.remove(address);
        } else {
            // SAFETY: as above. Which of the others is left is not known.
            unsafe {
                if (*there).sk == key {
                    (*there).sk = 0;
                }
                add(&raw mut (*there).count, u64::MAX);
            }
        }
    }
}
