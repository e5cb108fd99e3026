//! The one way to report: describe the socket, ask the filter, reserve, write, submit.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ringbuf_query},
};
use socklife_abi::{
    counter::Counter,
    event::{Envelope, HAS_TASK, Kind, MAPPED, Payload, Record, UNKNOWN},
    program::Program,
    table::{Entry, phase},
};

use crate::{
    books,
    lives::{self, Life},
    maps::{EVENTS, LISTENERS, REFUSALS, SHARES, count, global},
    mem::Mem,
    processes,
    requests::now,
    sock::{Sock, Tuple},
    task::Task,
};

/// A socket that passed the filter, described.
pub struct Subject {
    key: u64,
    /// The cookie of the socket whose key that is; 0 where it is not known.
    cookie: u64,
    pub envelope: Envelope,
    /// False where `--pid` asks for others: what it does is remembered all the same, for it may become ours.
    shown: bool,
}

impl Subject {
    /// Describes a socket, or says that nobody asked for it.
    #[inline(always)]
    pub fn new<M: Mem>(sock: Sock<M>, via: Program, task: Task) -> Option<Self> {
        Self::with_tuple(sock, sock.tuple(), via, task)
    }

    /// The same for a socket that does not hold its four-tuple itself.
    #[inline(always)]
    pub fn with_tuple<M: Mem>(sock: Sock<M>, tuple: Tuple, via: Program, task: Task) -> Option<Self> {
        Self::described(sock.key(), sock.key(), tuple, sock.netns(), via, task, true, || {
            M::cookie(sock)
        })
    }

    /// The same for a socket that is also shown where its owner, the listener, is.
    #[inline(always)]
    pub fn with_owner<M: Mem>(sock: Sock<M>, owner: u64, via: Program, task: Task) -> Option<Self> {
        Self::described(sock.key(), owner, sock.tuple(), sock.netns(), via, task, true, || {
            M::cookie(sock)
        })
    }

    /// The same for what no process did and what is no socket yet: the key is that of the socket it belongs to.
    #[inline(always)]
    pub fn of(key: u64, tuple: Tuple, netns: u32, via: Program, cookie: impl FnOnce() -> u64) -> Option<Self> {
        Self::described(key, key, tuple, netns, via, Task::NONE, false, cookie)
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "each is of another kind, and it is inlined")]
    fn described(
        key: u64,
        owner: u64,
        tuple: Tuple,
        netns: u32,
        via: Program,
        task: Task,
        own: bool,
        cookie: impl FnOnce() -> u64,
    ) -> Option<Self> {
        if !passes(&tuple, netns) {
            return None;
        }
        let time_ns = now();
        let cookie = cookie();
        let of_key = if own { cookie } else { 0 };
        let wanted = global!(FILTER.pid);
        let mut shown = true;
        if wanted != 0 {
            if task.pid == wanted {
                lives::change(key, of_key, |life| life.wanted = 1);
            } else {
                shown = lives::of(key, of_key).wanted != 0 || (owner != key && lives::of(owner, 0).wanted != 0);
            }
        }
        // SAFETY: takes no argument.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let mut flags = 0;
        if task.pid != 0 {
            flags |= HAS_TASK;
        }
        if tuple.mapped {
            flags |= MAPPED;
        }
        Some(Self {
            key,
            cookie: of_key,
            envelope: Envelope {
                time_ns,
                cookie,
                saddr: tuple.saddr,
                daddr: tuple.daddr,
                comm: task.comm,
                sport: tuple.sport,
                dport: tuple.dport,
                kind: 0,
                via: via as u16,
                flags,
                family: tuple.family,
                netns,
                cpu,
                pid: task.pid,
                tid: task.tid,
                uid: task.uid,
                lives: 0,
                reserved: [0; 2],
            },
            shown,
        })
    }

    /// Identity of the socket.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// What is remembered of the socket.
    #[inline(always)]
    pub fn life(&self) -> Life {
        lives::of(self.key, self.cookie)
    }

    /// Changes what is remembered of it. False where there is no room.
    #[inline(always)]
    pub fn changes(&self, changes: impl FnOnce(&mut Life)) -> bool {
        lives::change(self.key, self.cookie, changes)
    }

    /// What is remembered of it, to change it, if anything is.
    #[inline(always)]
    pub fn known_life(&self) -> Option<&'static mut Life> {
        lives::known(self.key, self.cookie)
    }

    /// Nanoseconds since the socket's first event, or `UNKNOWN`.
    #[inline(always)]
    pub fn age(&self) -> u64 {
        let life = self.life();
        if life.active | life.established == 0 {
            return UNKNOWN;
        }
        // Clocks of two CPUs may disagree by a little: never negative.
        self.envelope.time_ns.saturating_sub(life.birth_ns)
    }

    /// connect(2) begins the socket's life, or another attempt of it.
    #[inline(always)]
    pub fn connects(&self) {
        let birth_ns = self.envelope.time_ns;
        // What ICMP said of an attempt before, which came about all the same.
        if global!(FILTER.events) & (1 << Kind::ConnectFailed as u8) != 0 {
            let _ = REFUSALS.remove(self.key);
        }
        lives::begin(self.key, self.cookie, |life| {
            lives::again(self.key, life);
            life.birth_ns = birth_ns;
            life.active = 1;
            life.attempt = 1;
            self.describe(life, phase::CONNECTING);
        });
        books::note(self.envelope.netns, Entry::Connects);
    }

    /// This is how far the connection is.
    #[inline(always)]
    pub fn describe(&self, life: &mut Life, phase: u8) {
        let envelope = &self.envelope;
        life.saddr = envelope.saddr;
        life.daddr = envelope.daddr;
        life.sport = envelope.sport;
        life.dport = envelope.dport;
        life.netns = envelope.netns;
        life.family = envelope.family | if envelope.flags & MAPPED != 0 { 128 } else { 0 };
        life.phase = phase;
    }

    /// It is a connection, and nobody saw it become one; or it is older.
    #[inline(always)]
    pub fn is_open(&self) {
        lives::change(self.key, self.cookie, |life| self.describe(life, phase::OPEN));
    }

    /// The handshake is done: for us a child's life begins here.
    #[inline(always)]
    pub fn is_established(&self) {
        let birth_ns = self.envelope.time_ns;
        lives::begin(self.key, self.cookie, |life| {
            life.birth_ns = birth_ns;
            life.established = 1;
            self.describe(life, phase::OPEN);
        });
    }

    /// accept(2) took it. On another CPU that may come before the child is seen established.
    #[inline(always)]
    pub fn is_accepted(&self, listener: u64) {
        // A child that finds no room is counted where it is established.
        let mut late = false;
        self.changes(|life| {
            life.accepted = 1;
            if life.phase == phase::NONE && global!(FILTER.events) & (1 << Kind::Closed as u8) != 0 {
                self.describe(life, phase::OPEN);
                late = true;
            }
        });
        if late {
            books::note(self.envelope.netns, Entry::Late);
        }
        // Whose connections are wanted, its listener is.
        if global!(FILTER.pid) != 0 && self.envelope.pid == global!(FILTER.pid) && listener != 0 {
            lives::change(listener, 0, |life| life.wanted = 1);
        }
    }

    /// A child is put into the accept queue of a listener: now, or when it was made a moment ago. Returns when.
    #[inline(always)]
    pub fn is_queued(&self, listener: u64, now: bool) -> u64 {
        let mut queued_ns = self.envelope.time_ns;
        // A child that finds no room is counted where it is established.
        lives::change(self.key, self.cookie, |life| {
            life.queued = 1;
            life.listener = listener;
            if now || life.queued_ns == 0 {
                life.queued_ns = queued_ns;
            } else {
                queued_ns = life.queued_ns;
            }
        });
        queued_ns
    }

    /// Nanoseconds since it was put into the accept queue, or `UNKNOWN`.
    #[inline(always)]
    pub fn waited(&self) -> u64 {
        match self.known_life().map_or(0, |life| life.queued_ns) {
            0 => UNKNOWN,
            queued_ns => self.envelope.time_ns.saturating_sub(queued_ns),
        }
    }

    /// Its process holds it: what that process does is worth telling.
    #[inline(always)]
    pub fn is_held(&self) {
        if self.shown && self.envelope.pid != 0 {
            processes::note(self.envelope.pid);
        }
    }

    /// Another task did it.
    #[inline(always)]
    pub fn by(&mut self, task: Task) {
        self.envelope.pid = task.pid;
        self.envelope.tid = task.tid;
        self.envelope.uid = task.uid;
        self.envelope.comm = task.comm;
        if task.pid != 0 {
            self.envelope.flags |= HAS_TASK;
        }
    }

    /// Sends an event of a listener's SYN path, unless that listener had its share of this second: a flood would drown
    /// the rest. What is held back is counted.
    #[inline(always)]
    pub fn emit_sampled<P: Payload>(&self, listener: u64, payload: P) {
        if !self.shown || global!(FILTER.events) & (1 << P::KIND as u8) == 0 {
            return;
        }
        let share = global!(CONFIG.sample);
        if share != 0
            && let Some(tally) = LISTENERS.get_ptr_mut(listener)
        {
            // SAFETY: a value of LISTENERS; where two CPUs count at once the share is a little larger.
            let (second, shown) = unsafe { (&mut (*tally).second, &mut (*tally).shown) };
            if self.shown_in_this_second(second, shown) > share {
                count(Counter::Held(P::KIND as usize));
                return;
            }
        }
        self.emit(payload);
    }

    /// Sends an event of a kind that anybody on the network can cause, unless this CPU had its share of this second.
    #[inline(always)]
    pub fn emit_limited<P: Payload>(&self, payload: P) {
        if !self.shown || global!(FILTER.events) & (1 << P::KIND as u8) == 0 {
            return;
        }
        let share = global!(CONFIG.sample);
        if share != 0
            && let Some(sent) = SHARES.get_ptr_mut(P::KIND as u32)
        {
            // SAFETY: this CPU's value; where an interrupt counts at once the share is a little larger.
            let (second, shown) = unsafe { (&mut (*sent).second, &mut (*sent).shown) };
            if self.shown_in_this_second(second, shown) > share {
                count(Counter::Held(P::KIND as usize));
                return;
            }
        }
        self.emit(payload);
    }

    #[inline(always)]
    fn shown_in_this_second(&self, second: &mut u32, shown: &mut u32) -> u32 {
        let now = (self.envelope.time_ns >> 30) as u32;
        if *second != now {
            *second = now;
            *shown = 0;
        }
        *shown += 1;
        *shown
    }

    /// Sends an event about this socket, if its kind was asked for.
    #[inline(always)]
    pub fn emit<P: Payload>(&self, payload: P) {
        if !self.shown || global!(FILTER.events) & (1 << P::KIND as u8) == 0 {
            return;
        }
        #[cfg(feature = "log")]
        aya_log_ebpf::info!(
            (),
            "{} cookie {} sock {:x} pid {}",
            P::KIND.name(),
            self.envelope.cookie,
            self.key,
            self.envelope.pid
        );
        send(self.envelope, payload);
    }

    /// The same for a payload that the stack has no room for: it is written where it goes, all of it.
    #[inline(always)]
    pub fn emit_in_place<P: Payload>(&self, write: impl FnOnce(*mut P)) {
        if self.shown && global!(FILTER.events) & (1 << P::KIND as u8) != 0 {
            send_in_place(self.envelope, write);
        }
    }
}

/// Sends an event about a process, not about one socket, if its kind was asked for.
#[inline(always)]
pub fn emit_process<P: Payload>(task: Task, via: Program, payload: P) {
    let nowhere = Place {
        time_ns: now(),
        cookie: 0,
        tuple: Tuple::NONE,
        netns: 0,
        via: via as u16,
    };
    emit_at(&nowhere, task, payload);
}

/// Where and when something was seen that the filter has let through already.
pub struct Place {
    pub time_ns: u64,
    pub cookie: u64,
    pub tuple: Tuple,
    pub netns: u32,
    /// A [`Program`].
    pub via: u16,
}

/// Sends an event about what the filter was asked about before, if its kind was asked for.
#[inline(always)]
pub fn emit_at<P: Payload>(place: &Place, task: Task, payload: P) {
    if global!(FILTER.events) & (1 << P::KIND as u8) == 0 {
        return;
    }
    // SAFETY: takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    send(
        Envelope {
            time_ns: place.time_ns,
            cookie: place.cookie,
            saddr: place.tuple.saddr,
            daddr: place.tuple.daddr,
            comm: task.comm,
            sport: place.tuple.sport,
            dport: place.tuple.dport,
            kind: 0,
            via: place.via,
            flags: task_flag(task) | if place.tuple.mapped { MAPPED } else { 0 },
            family: place.tuple.family,
            netns: place.netns,
            cpu,
            pid: task.pid,
            tid: task.tid,
            uid: task.uid,
            lives: 0,
            reserved: [0; 2],
        },
        payload,
    );
}

#[inline(always)]
fn task_flag(task: Task) -> u8 {
    if task.pid == 0 { 0 } else { HAS_TASK }
}

/// Reserves, writes and submits; what finds no room is counted.
#[inline(always)]
fn send<P: Payload>(envelope: Envelope, payload: P) {
    // SAFETY: it is there to be written.
    send_in_place(envelope, |slot: *mut P| unsafe { slot.write(payload) });
}

#[inline(always)]
fn send_in_place<P: Payload>(envelope: Envelope, write: impl FnOnce(*mut P)) {
    let Some(mut slot) = EVENTS.reserve::<Record<P>>(0) else {
        count(Counter::Lost(P::KIND as usize));
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: within the record, which is there to be written.
    unsafe {
        (&raw mut (*record).envelope).write(Envelope {
            kind: P::KIND as u8,
            ..envelope
        });
        write(&raw mut (*record).payload);
    }
    slot.submit(wakeup());
}

/// A wake-up costs ten times the record: the reader comes by itself every few milliseconds.
#[inline(always)]
fn wakeup() -> u64 {
    // SAFETY: the map exists.
    let waiting = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    if waiting >= global!(CONFIG.wakeup_bytes) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// Whether the filter lets a socket with this four-tuple through.
#[inline(always)]
pub fn passes(tuple: &Tuple, netns: u32) -> bool {
    let want = global!(FILTER.netns);
    if want != 0 && netns != want {
        return false;
    }
    let want = global!(FILTER.family);
    if want != 0 && u16::from(tuple.family) != want {
        return false;
    }
    let want = global!(FILTER.lport);
    if want != 0 && tuple.sport != want {
        return false;
    }
    let want = global!(FILTER.rport);
    if want != 0 && tuple.dport != want {
        return false;
    }
    let want = global!(FILTER.port);
    if want != 0 && tuple.sport != want && tuple.dport != want {
        return false;
    }
    let mask = [global!(FILTER.mask[0]), global!(FILTER.mask[1])];
    if mask[0] | mask[1] == 0 {
        return true;
    }
    let addr = [global!(FILTER.addr[0]), global!(FILTER.addr[1])];
    let within = |a: [u64; 2]| a[0] & mask[0] == addr[0] && a[1] & mask[1] == addr[1];
    within(tuple.saddr) || within(tuple.daddr)
}

/// Whether a child of this listener may pass, as far as one can tell before the child has its four-tuple.
#[inline(always)]
pub fn may_pass(lport: u16, netns: u32) -> bool {
    let (want_netns, want_lport) = (global!(FILTER.netns), global!(FILTER.lport));
    (want_netns == 0 || netns == want_netns) && (want_lport == 0 || lport == want_lport)
}
