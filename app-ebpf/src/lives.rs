//! What is remembered of live sockets.
//!
//! The address of a sock is no identity: it is used again, and the end of the one that had it before may have gone
//! unseen. So what is remembered says whose it is, by cookie, and whoever has another cookie begins anew; so does a socket
//! that is made (`anew`), which may have no cookie yet.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{
    counter::{Counter, Missed},
    event::Kind,
    table::{Entry, phase},
};

pub use socklife_abi::table::Life;

use crate::{
    books,
    maps::{GRAVES, LIVES, TOLD, WRITTEN, count, global, missed},
    mem::{Obj, Probe, off},
};

/// [`Life::accepted`] of a child whose `accepted` was told.
pub const ACCEPTED: u8 = 1;
/// The same of a child that somebody has, though nobody saw accept(2) take it.
pub const ACCEPTED_UNSEEN: u8 = 2;

/// Nothing is remembered.
static NOTHING: Life = NONE;

const NONE: Life = Life {
    birth_ns: 0,
    queued_ns: 0,
    listener: 0,
    cookie: 0,
    saddr: [0; 2],
    daddr: [0; 2],
    sport: 0,
    dport: 0,
    netns: 0,
    phase: phase::NONE,
    family: 0,
    active: 0,
    established: 0,
    accepted: 0,
    attempt: 0,
    wanted: 0,
    queued: 0,
    reader: 0,
    writer: 0,
};

/// The cookie of a sock, as it stands there: no hook makes one for this.
#[inline(always)]
pub fn cookie(sk: u64) -> u64 {
    Obj::<Probe>::new(sk as *const u8).get(off!(cookie))
}

/// Whether this is remembered of the socket with that cookie. A cookie that nobody knows is no other.
#[inline(always)]
fn is_of(life: &Life, cookie: u64) -> bool {
    life.cookie == cookie || life.cookie == 0 || cookie == 0
}

/// What is remembered of a socket.
#[inline(always)]
pub fn of(key: u64, cookie: u64) -> Life {
    match LIVES.get_ptr(key) {
        // SAFETY: a value of LIVES; a flag that changes meanwhile is the old one or the new one.
        Some(life) if is_of(unsafe { &*life }, cookie) => unsafe { *life },
        _ => NONE,
    }
}

/// What is remembered of a socket, if anything is, to change it.
#[inline(always)]
pub fn known(key: u64, cookie: u64) -> Option<&'static mut Life> {
    // SAFETY: a value of LIVES.
    let life = unsafe { &mut *LIVES.get_ptr_mut(key)? };
    is_of(life, cookie).then_some(life)
}

/// Changes what is remembered; begins to remember if need be. False where there is no room.
#[inline(always)]
pub fn change(key: u64, cookie: u64, change: impl FnOnce(&mut Life)) -> bool {
    match LIVES.get_ptr(key) {
        // SAFETY: a value of LIVES.
        Some(life) if is_of(unsafe { &*life }, cookie) => {}
        Some(life) => {
            bury(key, life);
            insert(key);
        }
        None => insert(key),
    }
    match LIVES.get_ptr_mut(key) {
        Some(life) => {
            // SAFETY: a value of LIVES.
            let life = unsafe { &mut *life };
            if cookie != 0 {
                life.cookie = cookie;
            }
            change(life);
        }
        None => return false,
    }
    true
}

#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied onto the stack, which has no room for it"
)]
fn insert(key: u64) {
    // Another CPU may have been first, which is as good.
    let _ = LIVES.insert(key, &NOTHING, u64::from(BPF_NOEXIST));
}

/// The same where a life begins: a socket that finds no room is counted.
#[inline(always)]
pub fn begin(key: u64, cookie: u64, changes: impl FnOnce(&mut Life)) {
    if !change(key, cookie, changes) {
        missed(Missed::SocketTable);
    }
}

/// A socket is made at this address: whatever is remembered there is another's.
#[inline(always)]
pub fn anew(key: u64) {
    if let Some(life) = LIVES.get_ptr(key) {
        bury(key, life);
    }
    let _ = TOLD.remove(key);
    not_written(key);
}

/// What was written to the socket that had this address is not what is written to the next.
#[inline(always)]
fn not_written(key: u64) {
    if global!(FILTER.events) & (1 << Kind::SkbStep as u8) != 0 {
        let _ = WRITTEN.remove(key);
    }
}

/// The socket is gone.
#[inline(always)]
pub fn forget(key: u64) {
    let _ = LIVES.remove(key);
    not_written(key);
}

/// The socket of this life is gone, and nobody saw it go.
#[inline(always)]
fn bury(key: u64, life: *const Life) {
    // SAFETY: a value of LIVES.
    let (life, phase, netns) = unsafe { (&*life, (*life).phase, (*life).netns) };
    let grave = dig(key, life);
    if LIVES.remove(key).is_ok() {
        end_unseen(phase, netns);
    } else if let Some(grave) = grave {
        // Who looks for such was first, and tells.
        let _ = GRAVES.remove(grave);
    }
}

/// The same socket begins another life: what was remembered of the one before is over.
#[inline(always)]
pub fn again(key: u64, life: &mut Life) {
    let (phase, netns) = (life.phase, life.netns);
    dig(key, life);
    end_unseen(phase, netns);
    life.phase = phase::NONE;
    life.queued_ns = 0;
    life.listener = 0;
    life.active = 0;
    life.established = 0;
    life.accepted = 0;
    life.queued = 0;
}

/// This life ended, and nobody saw it end: user space tells of it, by what is left here under a key.
#[inline(always)]
fn dig(key: u64, life: &Life) -> Option<u64> {
    if life.phase != phase::OPEN
        || (global!(FILTER.pid) != 0 && life.wanted == 0)
        || global!(FILTER.events) & (1 << Kind::Closed as u8) == 0
    {
        return None;
    }
    let grave = if life.cookie == 0 { key } else { life.cookie };
    if GRAVES.insert(grave, life, 0).is_err() {
        count(Counter::Lost(Kind::Closed as usize));
        return None;
    }
    Some(grave)
}

/// Counts a life whose end nobody saw.
#[inline(always)]
pub fn end_unseen(phase: u8, netns: u32) {
    let entry = match phase {
        phase::OPEN => {
            missed(Missed::End);
            Entry::ClosedUnseen
        }
        phase::CONNECTING => {
            missed(Missed::Outcome);
            Entry::ConnectLost
        }
        phase::CHILD => {
            missed(Missed::Outcome);
            Entry::ChildLost
        }
        _ => return,
    };
    books::note(netns, entry);
}
