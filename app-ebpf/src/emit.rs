//! The one way to report: describe the socket, ask the filter, reserve, write, submit.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ringbuf_query},
};
use socklife_abi::{
    counter::Missed,
    event::{Envelope, HAS_TASK, MAPPED, Payload, Record, UNKNOWN},
    program::Program,
};

use crate::{
    maps::{ACTIVE, ESTABLISHED, EVENTS, LIVES, LOST, Life, WANTED, global, missed},
    mem::Mem,
    sock::{Sock, Tuple},
    task::Task,
};

/// A socket that passed the filter, described, with what is remembered of it.
pub struct Subject {
    key: u64,
    pub envelope: Envelope,
    /// In LIVES, or null. No `Option`: the compiler leaves a register undefined where it is `None`.
    life: *mut Life,
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
        let netns = sock.netns();
        if !passes(&tuple, netns) {
            return None;
        }
        let key = sock.key();
        // SAFETY: takes no argument.
        let time_ns = unsafe { bpf_ktime_get_boot_ns() };
        let mut life = life_of(key);
        let wanted = global!(FILTER.pid);
        if wanted != 0 {
            let here = task.pid == wanted;
            if !here && flags_of(life) & WANTED == 0 {
                return None;
            }
            if here && life.is_null() {
                remember(key, time_ns, WANTED);
                life = life_of(key);
            } else if here {
                set(life, WANTED);
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
            envelope: Envelope {
                time_ns,
                cookie: M::cookie(sock),
                saddr: tuple.saddr,
                daddr: tuple.daddr,
                comm: task.comm,
                sport: tuple.sport,
                dport: tuple.dport,
                kind: 0,
                via: via as u8,
                flags,
                family: tuple.family,
                netns,
                cpu,
                pid: task.pid,
                tid: task.tid,
                uid: task.uid,
                reserved: 0,
            },
            life,
        })
    }

    /// Nanoseconds since the socket's first event, or `UNKNOWN`.
    #[inline(always)]
    pub fn age(&self) -> u64 {
        if self.flags() & (ACTIVE | ESTABLISHED) == 0 {
            return UNKNOWN;
        }
        // SAFETY: it has flags, so it is a value of LIVES.
        let birth_ns = unsafe { (*self.life).birth_ns };
        // Clocks of two CPUs may disagree by a little: never negative.
        self.envelope.time_ns.saturating_sub(birth_ns)
    }

    /// What is remembered in `Life::flags`; 0 when nothing is.
    #[inline(always)]
    pub fn flags(&self) -> u64 {
        flags_of(self.life)
    }

    /// The socket's life begins here.
    #[inline(always)]
    pub fn begin(&self, flags: u64) {
        remember(self.key, self.envelope.time_ns, flags | self.flags() & WANTED);
    }

    /// Remembers a flag of a known life.
    #[inline(always)]
    pub fn mark(&self, flag: u64) {
        set(self.life, flag);
    }

    /// Sends an event about this socket, if its kind was asked for.
    #[inline(always)]
    pub fn emit<P: Payload>(&self, payload: P) {
        if global!(FILTER.events) & (1 << P::KIND as u8) == 0 {
            return;
        }
        let Some(mut slot) = EVENTS.reserve::<Record<P>>(0) else {
            if let Some(count) = LOST.get_ptr_mut(P::KIND as u32) {
                // SAFETY: this CPU's slot.
                unsafe { *count += 1 }
            }
            return;
        };
        slot.write(Record {
            envelope: Envelope {
                kind: P::KIND as u8,
                ..self.envelope
            },
            payload,
        });
        slot.submit(wakeup());
    }
}

#[inline(always)]
fn remember(key: u64, birth_ns: u64, flags: u64) {
    if LIVES.insert(&key, &Life { birth_ns, flags }, 0).is_err() {
        missed(Missed::SocketTable);
    }
}

#[inline(always)]
fn life_of(key: u64) -> *mut Life {
    LIVES.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())
}

#[inline(always)]
fn flags_of(life: *mut Life) -> u64 {
    if life.is_null() {
        return 0;
    }
    // SAFETY: a value of LIVES.
    unsafe { (*life).flags }
}

#[inline(always)]
fn set(life: *mut Life, flag: u64) {
    if !life.is_null() {
        // SAFETY: a value of LIVES. Flags are set by the task in the system call, one at a time.
        unsafe { (*life).flags |= flag }
    }
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

#[inline(always)]
fn passes(tuple: &Tuple, netns: u32) -> bool {
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
