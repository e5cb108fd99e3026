//! What becomes of a child while it waits for accept(2): it may die there, its listener may be closed over it, and
//! somebody may have it though nobody saw accept(2) take it.

use socklife_abi::{
    event::{NeverAccepted, Total, UNKNOWN},
    program::Program,
};

use crate::{
    emit::Subject,
    listeners,
    lives::{self, ACCEPTED_UNSEEN},
    maps::{CLOSING, DEAD},
    mem::{Mem, Probe},
    sock::{Sock, Tuple},
    task::{Task, thread},
};

/// A child that died while it waited. What is reset has no four-tuple any more when its listener is closed over it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Dead {
    pub time_ns: u64,
    pub queued_ns: u64,
    pub cookie: u64,
    pub saddr: [u64; 2],
    pub daddr: [u64; 2],
    pub sport: u16,
    pub dport: u16,
    pub family: u8,
    pub mapped: u8,
    pub reserved: u16,
    pub netns: u32,
    pub reserved2: u32,
}

/// Whether this thread is closing that listener.
#[inline(always)]
pub fn is_closing(listener: u64) -> bool {
    // SAFETY: a word.
    listener != 0 && unsafe { CLOSING.get(thread()) }.copied() == Some(listener)
}

/// A child's state changes, and nobody saw accept(2) take it. It may still be on its way out of that call: then this is
/// taken back.
#[inline(always)]
pub fn changed<M: Mem>(subject: &Subject, sock: Sock<M>) {
    let life = subject.life();
    if life.queued != 0 && life.accepted == 0 && sock.is_grafted() {
        if let Some(life) = subject.known_life() {
            life.accepted = ACCEPTED_UNSEEN;
        }
        listeners::count_one(life.listener, subject.envelope.netns, Total::AcceptUnseen);
    }
}

/// accept(2) took it: what was counted too early is taken back.
#[inline(always)]
pub fn taken(subject: &Subject) {
    let life = subject.life();
    if life.accepted == ACCEPTED_UNSEEN {
        listeners::uncount(life.listener, subject.envelope.netns, Total::AcceptUnseen);
    }
}

/// It is closed, and its listener lives on.
#[inline(always)]
pub fn died<M: Mem>(subject: &Subject, sock: Sock<M>) {
    let life = subject.life();
    if life.queued == 0 || life.accepted != 0 || sock.is_grafted() {
        return;
    }
    let envelope = &subject.envelope;
    let tuple = sock.tuple();
    let dead = Dead {
        time_ns: envelope.time_ns,
        queued_ns: life.queued_ns,
        cookie: envelope.cookie,
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        sport: tuple.sport,
        dport: tuple.dport,
        family: tuple.family,
        mapped: u8::from(tuple.mapped),
        reserved: 0,
        netns: envelope.netns,
        reserved2: 0,
    };
    // One that finds no room takes the place of the oldest: since when that is dead is then unknown.
    let _ = DEAD.insert(subject.key(), dead, 0);
    listeners::count_one(life.listener, envelope.netns, Total::DeadInQueue);
}

/// For how long it has been dead, or `UNKNOWN`.
#[inline(always)]
pub fn dead_for(subject: &Subject) -> u64 {
    // SAFETY: a child dies once.
    match unsafe { DEAD.get(subject.key()) } {
        Some(dead) => subject.envelope.time_ns.saturating_sub(dead.time_ns),
        None => UNKNOWN,
    }
}

/// It is destroyed: one that was dead already changes no state when its listener is closed over it.
///
/// By itself, for the stack of whoever destroys has no room for it (5.10: 512 bytes in all).
#[inline(never)]
pub fn destroyed(key: u64, via: Program) {
    // SAFETY: a child dies once, and is destroyed after that.
    let dead = match unsafe { DEAD.get(key) } {
        Some(dead) => *dead,
        None => return,
    };
    let _ = DEAD.remove(key);
    let life = lives::of(key, dead.cookie);
    if life.accepted != 0 || !is_closing(life.listener) {
        return;
    }
    let tuple = Tuple {
        saddr: dead.saddr,
        daddr: dead.daddr,
        sport: dead.sport,
        dport: dead.dport,
        family: dead.family,
        mapped: dead.mapped != 0,
    };
    let Some(mut subject) = Subject::of(key, tuple, dead.netns, via, || dead.cookie) else {
        return;
    };
    subject.by(Task::current());
    listeners::left(life.listener);
    listeners::count_one(life.listener, dead.netns, Total::NeverAccepted);
    subject.emit(NeverAccepted {
        listener: Probe::tcp(life.listener as *const u8).map_or(0, Probe::cookie),
        accept_wait_ns: match dead.queued_ns {
            0 => UNKNOWN,
            queued_ns => subject.envelope.time_ns.saturating_sub(queued_ns),
        },
    });
}
