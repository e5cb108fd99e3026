//! `sock:inet_sock_set_state` tells of `state`, `connected`, `connect_failed`, `established` and `closed`;
//! `tcp:tcp_destroy_sock` ends what is remembered of a socket.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use socklife_abi::{
    config::blind,
    event::{
        CAUSE_CLOSED_BY_CALLER, CAUSE_DISCONNECTED, CAUSE_ERRNO, CAUSE_UNKNOWN, Closed, ConnectFailed, Connected,
        END_UNSEEN, Envelope, Established, FIN_RECEIVED, Finding, Holder, Kind, NeverAccepted, State, Total, UNKNOWN,
        UNKNOWN_FD, finding, state, timer,
    },
    program::Program,
    table::{Entry, phase},
};

use crate::{
    args::slot,
    books,
    emit::{Subject, may_pass},
    listeners, lives,
    maps::{CLOSING, REFUSALS, TOLD, global},
    mem::{Direct, Mem, Probe, off},
    probes::{error, waiting, window},
    requests::now,
    skbs,
    sock::Sock,
    task::{Task, thread},
};

/// Both directions shut: `tcp_close` did it.
const SHUTDOWN_MASK: u8 = 3;

/// The kernel runs no program that is already running on the same CPU: a state change in softirq, or in a task that gets
/// the CPU, would be missed while the program works on another socket (`__bpf_trace_run`). So there are two programs at
/// the tracepoint, one after the other, and the second does what the first could not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

#[inline(always)]
fn changed<M: Mem>(sk: u64, oldstate: u32, newstate: u32, via: Program, turn: Turn) {
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    if is_blind_to(sock, newstate) {
        return;
    }
    let change = u64::from(oldstate) << 32 | u64::from(newstate);
    if turn == Turn::Second && told(sock.key(), change) {
        return;
    }
    // The child is being cloned: up to 6.12 it still wears the listener's four-tuple and cookie.
    if oldstate == state::LISTEN && newstate == state::SYN_RECV {
        cloned(sock, change, turn, via);
        return;
    }
    let owned = sock.owned_by_user();
    let task = if owned { Task::current() } else { Task::NONE };
    let Some(mut subject) = Subject::new(sock, via, task) else {
        return;
    };
    // Without room for the note it is left to the second program.
    if turn == Turn::First && TOLD.insert(sock.key(), change, 0).is_err() {
        return;
    }
    subject.emit(State { oldstate, newstate });
    balance(&subject, oldstate, newstate);
    if newstate == state::ESTABLISHED && global!(FILTER.events) & (1 << Kind::WindowStalled as u8) != 0 {
        window::learn(sock);
    }
    waiting::changed(&subject, sock);
    if newstate == state::CLOSE && !listener_closes(&mut subject, oldstate, owned) {
        waiting::died(&subject, sock);
    }
    match (oldstate, newstate) {
        (state::SYN_SENT, state::ESTABLISHED) => connected(&subject),
        // Simultaneous open: both ends called connect(2), or one socket is both ends.
        (state::SYN_RECV, state::ESTABLISHED) if is_no_child(&subject, sock) => connected(&subject),
        (state::SYN_RECV, state::ESTABLISHED) => {
            subject.is_established();
            subject.emit(Established {});
        }
        (state::SYN_SENT, state::CLOSE) => connect_ended(&subject, sock, owned),
        (state::CLOSE | state::LISTEN, _) => {}
        // A child that the kernel made and gave up before anyone could see it; not one of TCP Fast Open.
        (state::SYN_RECV, state::CLOSE) if subject.age() == UNKNOWN && !is_early(&subject, sock) => {}
        (_, state::CLOSE) => closed(&subject, sock, oldstate),
        _ => {}
    }
}

/// A child of TCP Fast Open was queued before its handshake, mostly with data.
#[inline(always)]
fn is_early<M: Mem>(subject: &Subject, sock: Sock<M>) -> bool {
    subject.known_life().is_some_and(|life| life.queued != 0) || sock.0.get(off!(bytes_received)) != 0
}

/// Counted as the kernel does (`tcp_done`): a child's reset twice (`tcp_check_req`), its own close not at all.
#[inline(always)]
fn ended_early(netns: u32, errno: u32, child: bool) {
    const ECONNRESET: u32 = 104;
    if errno != 0 {
        listeners::count_one(0, netns, Total::ConnectFailed);
    }
    if child && errno == ECONNRESET {
        listeners::count_one(0, netns, Total::ConnectFailed);
    }
}

/// Whether this socket was made by a process, and not by a listener.
#[inline(always)]
fn is_no_child<M: Mem>(subject: &Subject, sock: Sock<M>) -> bool {
    let life = subject.life();
    life.active != 0 || (life.queued | life.accepted == 0 && sock.is_grafted())
}

#[inline(always)]
fn connected(subject: &Subject) {
    subject.emit(Connected {
        handshake_ns: subject.age(),
    });
    let Envelope {
        saddr,
        daddr,
        sport,
        dport,
        pid,
        comm,
        ..
    } = subject.envelope;
    if sport == dport && saddr == daddr {
        let nobody = Holder {
            pid: 0,
            fd: UNKNOWN_FD,
            comm: [0; 16],
        };
        subject.emit(Finding {
            holder: Holder { pid, comm, ..nobody },
            other: nobody,
            since_ns: 0,
            what: finding::CONNECTED_TO_ITSELF,
            count: 1,
        });
    }
}

/// A child is made, at an address where another socket may have been whose end nobody saw. A moment later it is in the
/// accept queue: where no function can be hooked there, another CPU may accept it before anyone has noted when that was.
#[inline(always)]
fn cloned<M: Mem>(child: Sock<M>, change: u64, turn: Turn, via: Program) {
    let (key, netns) = (child.key(), child.netns());
    if !may_pass(child.0.get(off!(num)), netns) {
        return;
    }
    lives::anew(key);
    listeners::forget(key, via);
    // Without room for the note it is left to the second program.
    if turn == Turn::First && TOLD.insert(key, change, 0).is_err() {
        return;
    }
    books::note(netns, Entry::Children);
    let queued_ns = now();
    // One that finds no room is counted where it is established. Its cookie is not its own yet.
    lives::change(key, 0, |life| {
        life.queued_ns = queued_ns;
        life.netns = netns;
        life.phase = phase::CHILD;
    });
}

/// Keeps the books: what is counted of each change, and what it tells of one that nobody saw.
#[inline(always)]
fn balance(subject: &Subject, oldstate: u32, newstate: u32) {
    if oldstate == state::LISTEN || newstate == state::LISTEN {
        return;
    }
    let Some(book) = books::of(subject.envelope.netns) else {
        return;
    };
    if oldstate == state::ESTABLISHED {
        book.add(Entry::EstablishedOut);
    }
    if newstate == state::ESTABLISHED {
        book.add(Entry::EstablishedIn);
    }
    if oldstate == state::CLOSE_WAIT {
        book.add(Entry::CloseWaitOut);
    }
    if newstate == state::CLOSE_WAIT {
        book.add(Entry::CloseWaitIn);
    }
    if newstate == state::CLOSE && (oldstate == state::ESTABLISHED || oldstate == state::CLOSE_WAIT) {
        book.add(Entry::Resets);
    }
    if oldstate == state::CLOSE {
        return;
    }
    let life = subject.known_life();
    let before = life.as_ref().map_or(phase::NONE, |life| life.phase);
    let after = match (oldstate, newstate) {
        (state::SYN_SENT, state::SYN_RECV) => return,
        (state::SYN_SENT, state::ESTABLISHED) => {
            book.add(Entry::Connected);
            if before != phase::CONNECTING {
                book.add(Entry::NoConnect);
            }
            phase::OPEN
        }
        (state::SYN_SENT, _) => {
            // One that no SYN was sent of is told elsewhere.
            if before == phase::CONNECTING {
                book.add(Entry::ConnectEnded);
            }
            phase::OVER
        }
        (state::SYN_RECV, _) if before == phase::CONNECTING => {
            book.add(if newstate == state::CLOSE {
                Entry::ConnectEnded
            } else {
                Entry::Connected
            });
            if newstate == state::CLOSE {
                phase::OVER
            } else {
                phase::OPEN
            }
        }
        (state::SYN_RECV, _) => {
            book.add(if newstate == state::CLOSE {
                Entry::ChildEnded
            } else {
                Entry::Established
            });
            if before != phase::CHILD {
                book.add(Entry::NoChild);
            }
            if newstate == state::CLOSE {
                phase::OVER
            } else {
                phase::OPEN
            }
        }
        // A connection, and it was one before.
        _ => {
            match before {
                phase::CONNECTING => {
                    book.add(Entry::ConnectedUnseen);
                    books::unseen(Kind::Connected);
                }
                phase::CHILD => {
                    book.add(Entry::EstablishedUnseen);
                    books::unseen(Kind::Established);
                }
                phase::OPEN => {}
                _ => book.add(Entry::Late),
            }
            if newstate == state::CLOSE {
                book.add(Entry::Closed);
                phase::OVER
            } else {
                phase::OPEN
            }
        }
    };
    match life {
        Some(life) if before != phase::NONE => {
            if life.saddr == [0; 2] {
                // A child got its address since.
                subject.describe(life, after);
            }
            life.phase = after;
        }
        // One that finds no room is counted where its life begins.
        _ if after == phase::OPEN && global!(FILTER.events) & (1 << Kind::Closed as u8) != 0 => subject.is_open(),
        _ => {}
    }
}

/// Whether a test takes this change from us.
#[inline(always)]
fn is_blind_to<M: Mem>(sock: Sock<M>, newstate: u32) -> bool {
    let blind = global!(CONFIG.blind);
    if blind == 0 {
        return false;
    }
    let what = match newstate {
        state::SYN_RECV => blind >> 16 == blind::BEGIN,
        state::ESTABLISHED => matches!(blind >> 16, blind::BEGIN | blind::HANDSHAKE),
        state::FIN_WAIT2 | state::CLOSE => matches!(blind >> 16, blind::END | blind::STATE),
        _ => false,
    };
    what && sock.tuple().sport.checked_rem(blind as u16) == Some(0)
}

/// A listener that is closed takes what waits for accept(2) with it, in the same thread, one after the other
/// (`inet_csk_listen_stop`). True for what goes with it, and for the listener.
#[inline(always)]
fn listener_closes(subject: &mut Subject, oldstate: u32, owned: bool) -> bool {
    if oldstate == state::LISTEN {
        if owned {
            // One that finds no room takes the place of the oldest.
            let _ = CLOSING.insert(thread(), subject.key(), 0);
        }
        return true;
    }
    let life = subject.life();
    if life.queued == 0 || life.accepted != 0 || !waiting::is_closing(life.listener) {
        return false;
    }
    let nobody = subject.envelope;
    subject.by(Task::current());
    listeners::left(life.listener);
    listeners::count_one(life.listener, subject.envelope.netns, Total::NeverAccepted);
    subject.emit(NeverAccepted {
        listener: Probe::tcp(life.listener as *const u8).map_or(0, Probe::cookie),
        accept_wait_ns: subject.waited(),
    });
    subject.envelope = nobody;
    true
}

/// Whether the first program told of this change. The socket is locked: no other change of it comes in between.
#[inline(always)]
fn told(key: u64, change: u64) -> bool {
    // SAFETY: a word.
    let told = unsafe { TOLD.get(key) }.copied() == Some(change);
    let _ = TOLD.remove(key);
    told
}

#[inline(always)]
fn connect_ended<M: Mem>(subject: &Subject, sock: Sock<M>, owned: bool) {
    let ended_by = sock.err();
    let (refusal, active) = (
        error::refusal(subject.key()),
        subject.known_life().map_or(0, |life| life.active),
    );
    // Or what its process was told and took before it closed, or would have been told.
    let errno = match (ended_by, refusal) {
        (0, Some(refusal)) => refusal.errno,
        (0, None) => sock.0.get(off!(err_soft)),
        _ => ended_by,
    };
    let cause = if errno != 0 {
        CAUSE_ERRNO
    } else if sock.shutdown() == SHUTDOWN_MASK {
        CAUSE_CLOSED_BY_CALLER
    } else if active == 0 {
        // No SYN was sent: the hooks at connect(2) tell why.
        return;
    } else if owned {
        CAUSE_DISCONNECTED
    } else {
        CAUSE_UNKNOWN
    };
    if ended_by != 0 {
        listeners::count_one(0, subject.envelope.netns, Total::ConnectFailed);
    }
    let (sender, icmp, icmp_type, icmp_code) = match refusal.filter(|refusal| refusal.errno == errno) {
        Some(refusal) => (refusal.sender, refusal.version, refusal.icmp_type, refusal.icmp_code),
        None => ([0; 2], 0, 0, 0),
    };
    subject.emit(ConnectFailed {
        elapsed_ns: subject.age(),
        errno,
        cause,
        sender,
        icmp,
        icmp_type,
        icmp_code,
        reserved: [0; 5],
    });
    let _ = REFUSALS.remove(subject.key());
}

#[inline(always)]
fn closed<M: Mem>(subject: &Subject, sock: Sock<M>, oldstate: u32) {
    // Seen too late, where there is no state.
    let age = subject.age();
    let (lifetime_ns, unseen) = match age {
        _ if oldstate == 0 => (UNKNOWN, END_UNSEEN),
        // It was a child before the handshake, and nobody saw that done.
        UNKNOWN => (subject.waited(), 0),
        age => (age, 0),
    };
    subject.emit(Closed {
        lifetime_ns,
        bytes_received: sock.0.get(off!(bytes_received)),
        bytes_sent: sock.0.get(off!(bytes_sent)),
        bytes_retrans: sock.0.get(off!(bytes_retrans)),
        segs_in: sock.0.get(off!(segs_in)),
        segs_out: sock.0.get(off!(segs_out)),
        retransmits: sock.0.get(off!(total_retrans)),
        srtt_us8: sock.0.get(off!(srtt_us)),
        oldstate,
        errno: sock.err(),
        flags: unseen | if sock.fin_received() { FIN_RECEIVED } else { 0 },
        timer: timer_of(sock, oldstate, age == UNKNOWN),
    });
}

/// Which timer gave up (`tcp_write_err` sets this error and no other, before it closes): keepalive only while nothing is
/// to be sent, and probes of the window only while nothing is in flight. By itself, for its stack; so this counts
/// one of TCP Fast Open as well.
#[inline(never)]
fn timer_of<M: Mem>(sock: Sock<M>, oldstate: u32, child: bool) -> u32 {
    const ETIMEDOUT: u32 = 110;
    if oldstate == state::SYN_RECV {
        ended_early(sock.netns(), sock.err(), child);
    }
    if sock.err() != ETIMEDOUT {
        return timer::NONE;
    }
    let by_user = sock.0.get(off!(user_timeout)) != 0;
    match (sock.is_in_flight(), sock.has_to_send()) {
        // How often it may be probed counts beside the user's timeout.
        (false, true) => timer::WINDOW_PROBE,
        _ if by_user => timer::USER_TIMEOUT,
        (true, _) => timer::RETRANSMISSION,
        (false, false) => timer::KEEPALIVE,
    }
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_tp_btf(context: BtfTracePointContext) -> i32 {
    entered::<Direct>(&context, Program::StateTpBtf, Turn::First)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_tp_btf_second(context: BtfTracePointContext) -> i32 {
    entered::<Direct>(&context, Program::StateTpBtfSecond, Turn::Second)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_raw_tp(context: RawTracePointContext) -> i32 {
    entered::<Probe>(&context, Program::StateRawTp, Turn::First)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_raw_tp_second(context: RawTracePointContext) -> i32 {
    entered::<Probe>(&context, Program::StateRawTpSecond, Turn::Second)
}

#[inline(always)]
fn entered<M: Mem>(context: &impl EbpfContext, via: Program, turn: Turn) -> i32 {
    changed::<M>(
        slot(context, 0),
        slot(context, 1) as u32,
        slot(context, 2) as u32,
        via,
        turn,
    );
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_tp_btf(context: BtfTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast(), Program::DestroyTpBtf)
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy_tp_btf_second(context: BtfTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast(), Program::DestroyTpBtfSecond)
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy_raw_tp(context: RawTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast(), Program::DestroyRawTp)
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy_raw_tp_second(context: RawTracePointContext) -> i32 {
    destroyed(context.as_ptr().cast(), Program::DestroyRawTpSecond)
}

/// A socket that is given back is in CLOSE: where nobody saw it get there, that is told now, with all but when and how.
#[inline(always)]
fn unclosed(key: u64, via: Program) {
    let Some(life) = lives::known(key, lives::cookie(key)) else {
        return;
    };
    if !matches!(life.phase, phase::CONNECTING | phase::CHILD | phase::OPEN) {
        return;
    }
    let Some(sock) = Probe::tcp(key as *const u8) else {
        return;
    };
    let Some(subject) = Subject::new(sock, via, Task::NONE) else {
        return;
    };
    // A handshake that is done has measured a round trip.
    if life.phase != phase::OPEN && sock.0.get(off!(srtt_us)) != 0 {
        let (entry, kind) = if life.phase == phase::CHILD {
            (Entry::EstablishedUnseen, Kind::Established)
        } else {
            (Entry::ConnectedUnseen, Kind::Connected)
        };
        books::note(life.netns, entry);
        books::unseen(kind);
        life.phase = phase::OPEN;
    }
    lives::end_unseen(life.phase, life.netns);
    if life.phase == phase::OPEN {
        closed(&subject, sock, 0);
    }
    life.phase = phase::OVER;
}

/// Twice for the reason that [`Turn`] tells; to forget twice does no harm.
#[inline(always)]
fn destroyed(arguments: *const u64, via: Program) -> i32 {
    // SAFETY: the tracepoint's one argument.
    let key = unsafe { arguments.read_volatile() };
    if global!(CONFIG.blind) >> 16 == blind::END
        && Probe::tcp(key as *const u8).is_some_and(|sock| is_blind_to(sock, state::CLOSE))
    {
        return 0;
    }
    let _ = TOLD.remove(key);
    waiting::destroyed(key, via);
    listeners::forget(key, via);
    unclosed(key, via);
    lives::forget(key);
    skbs::closed(key);
    if waiting::is_closing(key) {
        let _ = CLOSING.remove(thread());
    }
    0
}
