//! The `sk_buff`s that are alive, and what is counted of those who allocate them and of connections.
//!
//! An `sk_buff` belongs to one caller for ever, and to no or one connection at a time. Each step may be seen twice, or by
//! two hooks of which one calls the other: what is there already is not counted again.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{
    counter::Missed,
    event::{Kind, SkbAlloc, SkbFree, UNKNOWN_DEPTH, state},
    program::Program,
    skb::{Alive, CallerTally, ConnectionTally, SINGLY, direction},
};

use crate::{
    emit::{Subject, passes},
    maps::{SKB_CALLERS, SKB_CONNECTIONS, SKBS, add, global, missed},
    mem::{Mem as _, Obj, Probe, off},
    packet,
    requests::now,
    sock::{Req, Sock, Tuple},
};

/// The kernel code that no socket of a connection is behind (`inet_ctl_sock_create`) has raw sockets for what it sends.
const NO_PORT: u16 = 0;

/// An allocation.
pub struct Made {
    /// The `sk_buff`, or null.
    pub skb: u64,
    /// The one that it is a clone of, or 0.
    pub original: u64,
    /// Return address.
    pub caller: u64,
    /// Bytes that were asked for.
    pub bytes: u32,
    /// 0 where the `sk_buff` is not filled in yet.
    pub truesize: u32,
    /// False for a function that calls another which is hooked too, and for the second program at one place.
    pub first: bool,
}

/// Whether everything passes the filter: then an allocation counts at once.
#[inline(always)]
fn everything_passes() -> bool {
    global!(FILTER.netns) == 0 && no_connection_filter()
}

/// Whether what belongs to no socket can pass.
#[inline(always)]
fn no_connection_filter() -> bool {
    global!(FILTER.port) == 0
        && global!(FILTER.lport) == 0
        && global!(FILTER.rport) == 0
        && global!(FILTER.family) == 0
        && global!(FILTER.mask[0]) | global!(FILTER.mask[1]) == 0
}

/// Whether one is known at this address.
#[inline(always)]
pub fn is_alive(skb: u64) -> bool {
    SKBS.get_ptr(skb).is_some()
}

/// One was allocated.
#[inline(always)]
pub fn made(made: &Made, via: Program) {
    if made.skb == 0 {
        return;
    }
    if is_alive(made.skb) {
        if !made.first {
            return;
        }
        missed(Missed::SkbEnd);
        ended(made.skb, via);
    }
    let mut alive = Alive {
        born_ns: now(),
        caller: made.caller,
        connection: 0,
        original: made.original,
        truesize: made.truesize,
        bytes: made.bytes,
        direction: direction::SEND,
        counted: u32::from(everything_passes()),
    };
    if made.original != 0
        && let Some(original) = SKBS.get_ptr(made.original)
    {
        // SAFETY: a value of SKBS, whose `sk_buff` the caller holds.
        unsafe {
            alive.connection = (*original).connection;
            alive.direction = (*original).direction;
            alive.counted |= (*original).counted;
        }
    }
    if SKBS.insert(made.skb, alive, u64::from(BPF_NOEXIST)).is_err() {
        missed(Missed::SkbTable);
        return;
    }
    if alive.counted != 0 {
        count_caller(&alive);
        if alive.connection != 0
            && let Some(connection) = SKB_CONNECTIONS.get_ptr_mut(alive.connection)
        {
            count_connection(made.skb, connection, &alive, via);
        }
    }
}

/// It is known whose it is.
#[inline(always)]
pub fn belongs(skb: u64, sk: u64, direction: u32, via: Program) {
    let Some(alive) = SKBS.get_ptr_mut(skb) else {
        return;
    };
    let sock = Sock(Obj::<Probe>::new(sk as *const u8));
    if sk == 0 {
        return;
    }
    let cookie = Probe::cookie(sock);
    let key = if cookie == 0 { sk } else { cookie };
    // SAFETY: a value of SKBS, whose `sk_buff` somebody holds while this runs.
    let before = unsafe { *alive };
    if before.connection == key {
        return;
    }
    let connection = match SKB_CONNECTIONS.get_ptr_mut(key) {
        Some(connection) => connection,
        None => match begin(sock, cookie, key) {
            Ok(connection) => connection,
            Err(Not::Wanted) => {
                if before.counted == 0 {
                    let _ = SKBS.remove(skb);
                }
                return;
            }
            Err(Not::ATcpSocket) => return,
        },
    };
    let after = Alive {
        connection: key,
        direction,
        counted: 1,
        ..before
    };
    // SAFETY: as above.
    unsafe { *alive = after };
    if before.counted == 0 {
        count_caller(&after);
    }
    if before.connection == 0 {
        count_connection(skb, connection, &after, via);
        return;
    }
    // SAFETY: values of SKB_CONNECTIONS.
    unsafe {
        add(&raw mut (*connection).arrived, 1);
        if let Some(from) = SKB_CONNECTIONS.get_ptr_mut(before.connection) {
            add(&raw mut (*from).passed, 1);
        }
    }
}

/// Why there is no connection.
enum Not {
    /// The filter does not let it through.
    Wanted,
    /// Another kind of socket, or one of the kernel's own.
    ATcpSocket,
}

#[inline(always)]
fn begin(sock: Sock<Probe>, cookie: u64, key: u64) -> Result<*mut ConnectionTally, Not> {
    let tuple = if sock.state() == state::NEW_SYN_RECV {
        Req(sock.0).tuple(false)
    } else {
        let Some(sock) = sock.if_tcp() else {
            return Err(Not::ATcpSocket);
        };
        sock.tuple()
    };
    if tuple.dport == NO_PORT && sock.state() != state::LISTEN {
        return Err(Not::ATcpSocket);
    }
    let netns = sock.netns();
    if !passes(&tuple, netns) {
        return Err(Not::Wanted);
    }
    let new = ConnectionTally {
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        cookie,
        sent: 0,
        received: 0,
        arrived: 0,
        passed: 0,
        freed: 0,
        bytes: 0,
        truesize: 0,
        lifetime_ns: 0,
        sport: tuple.sport,
        dport: tuple.dport,
        netns,
        family: tuple.family,
        closed: 0,
        reserved: [0; 6],
    };
    // Another CPU may have been first, which is as good.
    let _ = SKB_CONNECTIONS.insert(key, new, u64::from(BPF_NOEXIST));
    SKB_CONNECTIONS.get_ptr_mut(key).ok_or_else(|| {
        missed(Missed::SkbTallyTable);
        Not::ATcpSocket
    })
}

/// Whether one is alive, and not known to be a connection's.
#[inline(always)]
fn is_nobodys(skb: u64) -> bool {
    // SAFETY: a word of a value of SKBS.
    SKBS.get_ptr(skb)
        .is_some_and(|alive| unsafe { (*alive).connection } == 0)
}

/// It is handed to a device, whose socket it is or none's.
#[inline(always)]
pub fn queued(skb: u64, via: Program) {
    let object = Obj::<Probe>::new(skb as *const u8);
    let mut key = skb;
    if SKBS.get_ptr(key).is_none() {
        // The second of a pair, where pairs are what is counted.
        key = skb.wrapping_sub(u64::from(off!(pair_second).bytes()));
    }
    let Some(alive) = SKBS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a value of SKBS, whose `sk_buff` the caller holds.
    let before = unsafe { *alive };
    if before.truesize == 0 {
        let truesize = packet::truesize(object);
        // SAFETY: as above.
        unsafe { (*alive).truesize = truesize };
        if before.counted != 0 {
            count_truesize(before.caller, truesize);
        }
    }
    let sk = packet::sock(object);
    if sk != 0 {
        belongs(key, sk, direction::SEND, via);
        // TCP makes a FIN for no socket, keeps it, and sends a clone.
        if before.original != 0 && is_nobodys(before.original) {
            belongs(before.original, sk, direction::SEND, via);
        }
    }
    // Nobody's, but of the namespace that is wanted.
    if !everything_passes() && no_connection_filter() && packet::device_netns(object) == global!(FILTER.netns) {
        // SAFETY: as above; it may be gone from the table, and is written to in vain then.
        unsafe {
            if (*alive).counted == 0 {
                (*alive).counted = 1;
                let now = *alive;
                if SKBS.get_ptr(key).is_some() {
                    count_caller(&now);
                }
            }
        }
    }
}

/// It is gone.
#[inline(always)]
pub fn ended(skb: u64, via: Program) {
    let Some(alive) = SKBS.get_ptr(skb) else {
        return;
    };
    // SAFETY: a value of SKBS; it is freed once.
    let alive = unsafe { *alive };
    if SKBS.remove(skb).is_err() || alive.counted == 0 {
        return;
    }
    let lifetime_ns = now().saturating_sub(alive.born_ns);
    if let Some(tally) = caller(alive.caller) {
        // SAFETY: a value of SKB_CALLERS.
        unsafe {
            add(&raw mut (*tally).freed, 1);
            add(&raw mut (*tally).truesize_freed, u64::from(alive.truesize));
            add(&raw mut (*tally).lifetime_ns, lifetime_ns);
        }
    }
    if alive.connection == 0 {
        return;
    }
    let Some(connection) = SKB_CONNECTIONS.get_ptr_mut(alive.connection) else {
        return;
    };
    // SAFETY: a value of SKB_CONNECTIONS.
    unsafe {
        add(&raw mut (*connection).freed, 1);
        add(&raw mut (*connection).lifetime_ns, lifetime_ns);
    }
    if global!(FILTER.events) & (1 << Kind::SkbFree as u8) != 0
        && let Some(subject) = subject(connection, alive.connection, via)
    {
        subject.emit(SkbFree {
            skb,
            caller: alive.caller,
            lifetime_ns,
            truesize: alive.truesize,
            direction: alive.direction,
        });
    }
}

/// A socket is destroyed.
#[inline(always)]
pub fn closed(sk: u64) {
    if global!(FILTER.events) & SINGLY == 0 {
        return;
    }
    let cookie = Probe::cookie(Sock(Obj::new(sk as *const u8)));
    let key = if cookie == 0 { sk } else { cookie };
    if let Some(connection) = SKB_CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: a value of SKB_CONNECTIONS.
        unsafe { (*connection).closed = 1 };
    }
}

#[inline(always)]
fn caller(address: u64) -> Option<*mut CallerTally> {
    if SKB_CALLERS.get_ptr(address).is_none() {
        // Another CPU may have been first, which is as good.
        let _ = SKB_CALLERS.insert(
            address,
            CallerTally {
                allocated: 0,
                freed: 0,
                bytes: 0,
                truesize: 0,
                truesize_freed: 0,
                lifetime_ns: 0,
            },
            u64::from(BPF_NOEXIST),
        );
    }
    SKB_CALLERS.get_ptr_mut(address)
}

#[inline(always)]
fn count_caller(alive: &Alive) {
    let Some(tally) = caller(alive.caller) else {
        missed(Missed::SkbTallyTable);
        return;
    };
    // SAFETY: a value of SKB_CALLERS.
    unsafe {
        add(&raw mut (*tally).allocated, 1);
        add(&raw mut (*tally).bytes, asked(alive.bytes));
        add(&raw mut (*tally).truesize, u64::from(alive.truesize));
    }
}

/// Bytes that were asked for, as far as that is known.
#[inline(always)]
fn asked(bytes: u32) -> u64 {
    if bytes == UNKNOWN_DEPTH { 0 } else { u64::from(bytes) }
}

#[inline(always)]
fn count_truesize(address: u64, truesize: u32) {
    if let Some(tally) = SKB_CALLERS.get_ptr_mut(address) {
        // SAFETY: a value of SKB_CALLERS.
        add(unsafe { &raw mut (*tally).truesize }, u64::from(truesize));
    }
}

#[inline(always)]
fn count_connection(skb: u64, connection: *mut ConnectionTally, alive: &Alive, via: Program) {
    // SAFETY: a value of SKB_CONNECTIONS.
    unsafe {
        if alive.direction == direction::SEND {
            add(&raw mut (*connection).sent, 1);
        } else {
            add(&raw mut (*connection).received, 1);
        }
        add(&raw mut (*connection).bytes, asked(alive.bytes));
        add(&raw mut (*connection).truesize, u64::from(alive.truesize));
    }
    if global!(FILTER.events) & (1 << Kind::SkbAlloc as u8) != 0
        && let Some(subject) = subject(connection, alive.connection, via)
    {
        subject.emit(SkbAlloc {
            skb,
            caller: alive.caller,
            bytes: alive.bytes,
            truesize: alive.truesize,
            direction: alive.direction,
            reserved: 0,
        });
    }
}

#[inline(always)]
fn subject(connection: *mut ConnectionTally, key: u64, via: Program) -> Option<Subject> {
    // SAFETY: a value of SKB_CONNECTIONS.
    let (tuple, netns, cookie) = unsafe {
        let tuple = Tuple {
            saddr: (*connection).saddr,
            daddr: (*connection).daddr,
            sport: (*connection).sport,
            dport: (*connection).dport,
            family: (*connection).family,
            mapped: false,
        };
        (tuple, (*connection).netns, (*connection).cookie)
    };
    Subject::of(key, tuple, netns, via, || cookie)
}
