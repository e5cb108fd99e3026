//! Every map and every global, with its life.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use socklife_abi::{
    config::{Config, Filter},
    counter::{COUNTERS, Counter, Missed},
    event::{KINDS, TOTALS},
    kernel::{Args, Offsets, Regs},
    skb::{Alive, CallerTally, Code, ConnectionTally},
    table::{Book, DropCount, DropPlace, Following, Life, ListenKey, Listening, Refusal, Request, RequestKey, Tally},
};

use crate::{
    follow::{Buffer, Followed, SegmentKey, Written},
    probes::waiting::Dead,
    softirq::Softirq,
};

/// Set by the loader, read-only, frozen before the programs are loaded: the verifier takes the values for constants.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ABSENT;
#[unsafe(no_mangle)]
pub static ARGS: Args = Args::ABSENT;
#[unsafe(no_mangle)]
pub static REGS: Regs = Regs::ABSENT;
#[unsafe(no_mangle)]
pub static FILTER: Filter = Filter::ANY;
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;
#[unsafe(no_mangle)]
pub static CODE: Code = Code::UNKNOWN;

/// Reads one field of a global; volatile, or the compiler would fold the placeholder in.
macro_rules! global {
    ($name:ident . $field:ident $([$i:expr])?) => {
        // SAFETY: a static of ours, never written.
        unsafe { core::ptr::read_volatile(&raw const crate::maps::$name.$field $([$i])?) }
    };
}
pub(crate) use global;

/// Written by `emit`, read by user space. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// What could not be told, by CPU and `Counter`. Written by `count`; user space reads the pages themselves, for a look by
/// system call keeps kprobes from running meanwhile (`bpf_disable_instrumentation`). The loader sets the size.
#[map]
pub static COUNTS: Array<u64> = Array::with_max_entries(COUNTERS as u32, BPF_F_MMAPABLE);

/// The processes that hold sockets which somebody asked for, or have held one: what they do is worth telling.
///
/// Inserted when a process opens, accepts or receives a socket, by a fork of such a process, and at the start by user
/// space; deleted when the process ends. An end that nobody saw leaves a PID, which the next fork that makes a process of
/// that PID takes out. Full: `Missed::ProcessTable` counts.
#[map]
pub static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(32_768, 0);

/// What must be remembered of a live socket, by the address of its `struct sock`.
///
/// Inserted at connect, when a child is made, at established, accept, where `--pid` recognises a socket, and by the
/// snapshot at the start; deleted at `tcp_destroy_sock`, which every full TCP sock passes. A destroy that nobody saw leaves
/// an entry: the next socket at the address begins anew (`lives.rs`), and until there is one, user space finds it by
/// looking (`probes/look.rs`). Full: the event is sent all the same, without its duration, and `Missed::SocketTable`
/// counts. The loader sets the size.
#[map]
pub static LIVES: HashMap<u64, Life> = HashMap::with_max_entries(65_536, 0);

/// Lives whose end nobody saw, by cookie, or address where there is none.
///
/// Inserted where the next socket at the address begins, taken out by user space, which tells of them. Full: counted as
/// `closed` that are lost.
#[map]
pub static GRAVES: HashMap<u64, Life> = HashMap::with_max_entries(8_192, 0);

/// What is counted of the connections of network namespaces, by inode; by 0 for all of them what is older.
///
/// Inserted at a namespace's first count, never deleted. Read by user space. Full: `Missed::ListenerTable` counts.
#[map]
pub static BOOKS: HashMap<u32, Book> = HashMap::with_max_entries(4_096, 0);

/// How many connections are in each phase, by namespace: what the last look found.
///
/// Inserted by a look, deleted by user space before the next.
#[map]
pub static STANDING: HashMap<u32, [u64; 5]> = HashMap::with_max_entries(4_096, 0);

/// State changes that the first of the two programs told of, by socket, for the second.
///
/// Inserted by the first, deleted by the second a moment later; where the second did not get to run, the socket's next
/// change overwrites it, its destroy deletes it, or the next socket at the address does. Full: the first leaves the change to the second.
#[map]
pub static TOLD: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);

/// A function that was entered and has not returned, by thread; kprobes see the arguments only at entry.
///
/// Inserted at entry, deleted at return, both in the same thread. A return that is missed leaves an entry that the
/// thread's next call overwrites or the LRU evicts; where that one's entry is missed as well, its return is told of the
/// object of the call before.
#[map]
pub static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(16_384, 0);

/// The backlog that listen(2) was called with, by thread: the kernel clamps it before anyone else sees it.
///
/// Inserted at entry of the system call, deleted when the listen succeeds; a failed one is overwritten or evicted.
#[map]
pub static LISTENS: LruHashMap<u64, Listen> = LruHashMap::with_max_entries(1_024, 0);

/// What the first of two programs at one place did, by thread.
///
/// Inserted by the one, deleted by the other, in the same thread. Where the other did not run, the thread's next call
/// overwrites it.
#[map]
pub static DONE: LruHashMap<u64, Done> = LruHashMap::with_max_entries(16_384, 0);

/// The descriptor that close(2) was called with, by thread: where it goes, only the file is known.
///
/// Inserted at entry for sockets, deleted where the file goes, in the same thread.
#[map]
pub static CLOSES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

/// Half-open connections, by four-tuple.
///
/// Inserted when a request joins the SYN queue, and for those that stood there when the trace began; deleted when it
/// leaves it, whichever way: completed, expired, reset, cancelled, or with its listener. What none of the hooks saw
/// leave, user space deletes when its timer was silent for longer than a timer can be. Full: `Missed::RequestTable`
/// counts. The loader sets the size.
#[map]
pub static REQUESTS: HashMap<RequestKey, Request> = HashMap::with_max_entries(65_536, 0);

/// What is counted of listeners, by the address of the `struct sock`.
///
/// Inserted at LISTEN, at the first event of a listener that is older, and by the snapshot at the start; deleted at
/// `tcp_destroy_sock`, which sends what was counted. A destroy that nobody saw leaves an entry, as in `LIVES`: it goes, with
/// what was counted, where the next socket at the address begins, or by looking. Read by user space. Full:
/// `Missed::ListenerTable` counts.
#[map]
pub static LISTENERS: HashMap<u64, Tally> = HashMap::with_max_entries(8_192, 0);

/// Who listens on an address, for hooks that see a packet and no listener. As `LISTENERS`.
#[map]
pub static LISTENING: HashMap<ListenKey, Listening> = HashMap::with_max_entries(8_192, 0);

/// What is counted of network namespaces, by inode: of listeners that are gone, or that nobody knows, too.
///
/// Inserted at a namespace's first count, never deleted. Read by user space. Full: `Missed::ListenerTable` counts.
#[map]
pub static NAMESPACES: HashMap<u32, [u64; TOTALS]> = HashMap::with_max_entries(4_096, 0);

/// The listener that a thread is closing.
///
/// Inserted at LISTEN → CLOSE, deleted when the listener is destroyed a moment later, in the same thread. Where nobody saw
/// that, the thread's next listener overwrites it, or the LRU evicts it; until then it tells of children only that this very
/// thread gives up unaccepted, of a listener at that address.
#[map]
pub static CLOSING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1_024, 0);

/// What ICMP said of connects, by the address of the `struct sock`.
///
/// Inserted when the process is told, deleted when the connect ends without a connection and when the next one begins at that
/// address; else evicted by the LRU. It says whose it is.
#[map]
pub static REFUSALS: LruHashMap<u64, Refusal> = LruHashMap::with_max_entries(1_024, 0);

/// Children that died while they waited for accept(2), by the address of the `struct sock`.
///
/// Inserted at their death, deleted at `tcp_destroy_sock`; else evicted by the LRU.
#[map]
pub static DEAD: LruHashMap<u64, Dead> = LruHashMap::with_max_entries(8_192, 0);

/// The descriptor that accept(2) was called with, by thread: a call that is refused gets to no listener.
///
/// Inserted at entry of the system call, deleted at its return, in the same thread. Else as `CALLS`.
#[map]
pub static ACCEPTS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

/// What one hook on the SYN path leaves for the next on the same CPU.
#[map]
pub static SOFTIRQ: PerCpuArray<Softirq> = PerCpuArray::with_max_entries(1, 0);

/// Dropped segments, by reason and place.
///
/// Inserted at the first drop there, never deleted: there are as many as the kernel has places that drop. Read by user
/// space. Full: `Missed::DropTable` counts.
#[map]
pub static DROPS: HashMap<DropPlace, DropCount> = HashMap::with_max_entries(4_096, 0);

/// How many events of a kind this CPU has sent in this second. By [`Kind`](socklife_abi::event::Kind).
#[map]
pub static SHARES: PerCpuArray<Share> = PerCpuArray::with_max_entries(KINDS as u32, 0);

/// The functions of timers, learnt from those that run: requests', then connections'.
#[map]
pub static LEARNT: Array<u64> = Array::with_max_entries(2, 0);

/// See `SHARES`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Share {
    pub second: u32,
    pub shown: u32,
}

/// How many segments are followed. User space sets it when every hook is attached.
#[map]
pub static FOLLOWING: Array<Following> = Array::with_max_entries(1, 0);

/// The segments that are followed, by number.
///
/// Inserted at a segment's first step, deleted when it was read to its end or merged into another; one that is dropped, or
/// leaves the machine, the LRU evicts. The loader makes these tables small where no segment is followed.
#[map]
pub static FOLLOWED: LruHashMap<u32, Followed> = LruHashMap::with_max_entries(4_096, 0);

/// Their buffers, by `skb->head`: clones share one. Inserted at the first step in a buffer, else as `FOLLOWED`; an entry
/// whose buffer was given back and taken again is known by the sequence number.
#[map]
pub static BUFFERS: LruHashMap<u64, Buffer> = LruHashMap::with_max_entries(8_192, 0);

/// Their numbers, by four-tuple and sequence number: a copy has another buffer. As `FOLLOWED`.
#[map]
pub static SEGMENTS: LruHashMap<SegmentKey, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Segments that were not followed because of the rate, lest each of their steps counts. The LRU evicts them: one that is
/// evicted on its way is counted twice.
#[map]
pub static LEFT_OUT: LruHashMap<SegmentKey, u32> = LruHashMap::with_max_entries(8_192, 0);

/// The last call that wrote to a socket, by the address of its `struct sock`.
///
/// Overwritten by the socket's next call, deleted at its destroy and where the next socket at the address begins, else
/// evicted by the LRU.
#[map]
pub static WRITTEN: LruHashMap<u64, Written> = LruHashMap::with_max_entries(4_096, 0);

/// A segment on its way into the receive queue, by thread, from entry to return: who sees the return no longer sees the
/// arguments.
#[map]
pub static QUEUEING: LruHashMap<u64, Call> = LruHashMap::with_max_entries(1_024, 0);

/// `sk_buff`s that are alive, by address.
///
/// Inserted where one is allocated, deleted where it is freed; an allocation at an address that is there already tells that
/// the end was missed. Full: `Missed::SkbTable` counts. The loader sets the size: 1 where nobody counts.
#[map]
pub static SKBS: HashMap<u64, Alive> = HashMap::with_max_entries(1, 0);

/// What is counted of those who allocate, by return address, for each CPU.
///
/// Inserted at a caller's first allocation, never deleted: there are as many as the kernel's code has places. Full:
/// `Missed::SkbTallyTable` counts. Read by user space. The loader sets the size.
#[map]
pub static SKB_CALLERS: PerCpuHashMap<u64, CallerTally> = PerCpuHashMap::with_max_entries(1, 0);

/// What is counted of connections, by cookie or address of the socket.
///
/// Inserted at a connection's first `sk_buff`, deleted by user space when the socket is destroyed and nothing of it is
/// alive. Full: `Missed::SkbTallyTable` counts. Read by user space. The loader sets the size.
#[map]
pub static SKB_CONNECTIONS: HashMap<u64, ConnectionTally> = HashMap::with_max_entries(1, 0);

/// An allocation that was entered and has not returned, by the place of its return address on the stack: a thread can be
/// in one, and the softirq on top of it in another.
///
/// Inserted at entry, deleted at return. A return that a kretprobe misses (`maxactive`) leaves an entry that the LRU evicts.
#[map]
pub static SKB_CALLS: LruHashMap<u64, SkbCall> = LruHashMap::with_max_entries(1_024, 0);

/// See `SKB_CALLS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SkbCall {
    /// Return address.
    pub caller: u64,
    /// The `sk_buff` that is cloned, or the sock that it is for.
    pub object: u64,
    /// Bytes that are asked for.
    pub bytes: u32,
    /// One of the functions: see `probes/skb_alloc.rs`.
    pub what: u32,
}

/// See `CALLS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// The sock, or socket, of the call.
    pub object: u64,
    /// Its second argument of interest.
    pub other: u64,
}

/// See `DONE`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Done {
    /// What it was called with.
    pub object: u64,
    /// Which place it is: one of the programs there.
    pub place: u64,
}

/// See `LISTENS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Listen {
    pub fd: u64,
    pub backlog: i64,
}

/// Counts something that could not be told.
#[inline(always)]
pub fn count(counter: Counter) {
    // SAFETY: takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(figure) = COUNTS.get_ptr_mut(cpu * COUNTERS as u32 + counter.slot() as u32) {
        add(figure, 1);
    }
}

/// See [`Missed`].
#[inline(always)]
pub fn missed(what: Missed) {
    count(Counter::Missed(what as usize));
}

/// Adds to a figure that others may add to at the same time: another CPU, or an interrupt.
#[inline(always)]
pub fn add(figure: *mut u64, value: u64) {
    // SAFETY: a word of a map's value; rustc has no atomics for this target.
    unsafe {
        asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) figure, v = in(reg) value, options(nostack));
    }
}
