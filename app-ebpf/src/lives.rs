//! What is remembered of live sockets.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::counter::Missed;

use crate::maps::{LIVES, missed};

/// [`Life::accepted`] of a child whose `accepted` was told.
pub const ACCEPTED: u8 = 1;
/// The same of a child that somebody has, though nobody saw accept(2) take it.
pub const ACCEPTED_UNSEEN: u8 = 2;

/// One socket. Each flag is a byte of its own: two CPUs that set two of them do not undo each other.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Life {
    /// When it began; only with `active` or `established`.
    pub birth_ns: u64,
    /// When this child was put into the accept queue; 0 where nobody knows.
    pub queued_ns: u64,
    /// Address of the listener that this is a child of; 0 where nobody knows.
    pub listener: u64,
    /// This end called connect(2).
    pub active: u8,
    /// This end is a listener's child, and its handshake is done.
    pub established: u8,
    /// [`ACCEPTED`], [`ACCEPTED_UNSEEN`], or 0.
    pub accepted: u8,
    /// connect(2) is still running and got as far as the SYN.
    pub attempt: u8,
    /// The task of `--pid` was seen with it.
    pub wanted: u8,
    /// `accept_queued` was told.
    pub queued: u8,
    pub reserved: [u8; 2],
    /// The process that read last, and the one that wrote last; 0 for nobody.
    pub reader: u32,
    pub writer: u32,
}

impl Life {
    /// Nothing is remembered.
    const NONE: Self = Self {
        birth_ns: 0,
        queued_ns: 0,
        listener: 0,
        active: 0,
        established: 0,
        accepted: 0,
        attempt: 0,
        wanted: 0,
        queued: 0,
        reserved: [0; 2],
        reader: 0,
        writer: 0,
    };
}

/// What is remembered of a socket.
#[inline(always)]
pub fn of(key: u64) -> Life {
    match LIVES.get_ptr(key) {
        // SAFETY: a value of LIVES; a flag that changes meanwhile is the old one or the new one.
        Some(life) => unsafe { *life },
        None => Life::NONE,
    }
}

/// Changes what is remembered, if anything is.
#[inline(always)]
pub fn change_known(key: u64, change: impl FnOnce(&mut Life)) {
    if let Some(life) = LIVES.get_ptr_mut(key) {
        // SAFETY: a value of LIVES.
        change(unsafe { &mut *life });
    }
}

/// Changes what is remembered; begins to remember if need be. False where there is no room.
#[inline(always)]
pub fn change(key: u64, change: impl FnOnce(&mut Life)) -> bool {
    if LIVES.get_ptr(key).is_none() {
        // Another CPU may have been first, which is as good.
        let _ = LIVES.insert(key, Life::NONE, u64::from(BPF_NOEXIST));
    }
    match LIVES.get_ptr_mut(key) {
        // SAFETY: a value of LIVES.
        Some(life) => change(unsafe { &mut *life }),
        None => return false,
    }
    true
}

/// The same where a life begins: a socket that finds no room is counted.
#[inline(always)]
pub fn begin(key: u64, changes: impl FnOnce(&mut Life)) {
    if !change(key, changes) {
        missed(Missed::SocketTable);
    }
}

/// The socket is gone.
#[inline(always)]
pub fn forget(key: u64) {
    let _ = LIVES.remove(key);
}
