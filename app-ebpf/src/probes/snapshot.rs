//! What is there when the trace begins: listeners, half-open connections, and children that wait for accept(2).

use aya_ebpf::bindings::seq_file;
use socklife_abi::{
    event::{Kind, state},
    program::Program,
    table::{Entry, phase},
};

use crate::{
    books,
    emit::Subject,
    half_open, listeners, lives,
    maps::global,
    mem::{Mem as _, Obj, Probe, off},
    probes::{syn_queue::learn, window},
    sock::{Req, Sock},
    task::Task,
};

/// `struct bpf_iter__tcp`: pointers, each in eight bytes.
#[repr(C)]
pub struct IterTcp {
    pub meta: *const IterMeta,
    pub sk_common: *const u8,
    pub uid: u32,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
pub struct IterMeta {
    pub seq: *mut seq_file,
}

/// Runs once for each socket of a namespace. aya has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn snapshot_iter(context: *const IterTcp) -> i32 {
    // SAFETY: the program's own context.
    let sk = unsafe { (&raw const (*context).sk_common).read_volatile() };
    if sk.is_null() {
        return 0;
    }
    let via = Program::SnapshotIter;
    let common = Obj::<Probe>::new(sk);
    if u32::from(common.get(off!(state))) == state::NEW_SYN_RECV {
        let req = Req(common);
        if let Some(listener) = Probe::tcp(req.listener() as *const u8) {
            learn(req.timer_function());
            half_open::before(listener, req, via);
        }
        return 0;
    }
    let Some(sock) = Probe::tcp(sk) else { return 0 };
    let passes = |key: u64| Subject::of(key, sock.tuple(), sock.netns(), via, || 0).is_some();
    if sock.state() == state::LISTEN {
        if passes(sock.key()) {
            listeners::note(sock, true);
        }
        return 0;
    }
    if sock.state() == state::ESTABLISHED {
        window::learn(sock);
    }
    if sock.waits_for_accept() && passes(sock.key()) {
        let listener = listeners::at(&sock.tuple(), sock.netns()).map_or(0, |listener| listener.key());
        lives::change(sock.key(), lives::cookie(sock.key()), |life| {
            life.queued = 1;
            life.listener = listener;
        });
    }
    older(sock, via);
    0
}

/// Remembers a connection, so that its end is missed if nobody sees it; no more of them than leave room for what comes.
#[inline(always)]
fn older(sock: Sock<Probe>, via: Program) {
    if global!(FILTER.events) & (1 << Kind::Closed as u8) == 0 {
        return;
    }
    let (phase, entry) = match sock.state() {
        state::SYN_SENT => (phase::CONNECTING, Entry::OlderConnects),
        state::ESTABLISHED
        | state::FIN_WAIT1
        | state::FIN_WAIT2
        | state::CLOSING
        | state::CLOSE_WAIT
        | state::LAST_ACK => (phase::OPEN, Entry::Older),
        _ => return,
    };
    let Some(all) = books::of(0) else { return };
    if all.total(Entry::Older) >= global!(CONFIG.older) {
        return;
    }
    let Some(subject) = Subject::new(sock, via, Task::NONE) else {
        return;
    };
    let mut new = false;
    subject.changes(|life| {
        // A hook may have been first.
        if life.phase == phase::NONE {
            subject.describe(life, phase);
            new = true;
        }
    });
    if new {
        all.add(Entry::Older);
        books::note(subject.envelope.netns, entry);
    }
}
