//! Segments that are followed through the layers, from one sk_buff to the next.

mod choose;
mod tell;

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{counter::Missed, program::Program, step::place};

use self::{
    choose::choose,
    tell::{begins_with_call, tell},
};
use crate::{
    emit::passes,
    maps::{BUFFERS, Call, QUEUEING, WRITTEN, missed},
    mem::{Mem as _, Obj, Probe, off},
    packet::layers::{Device, Headers, Layout, owner},
    requests::now,
    sock::{Sock, Tuple},
    task::{Task, thread},
};

/// A segment, wherever its bytes lie.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SegmentKey {
    pub saddr: [u64; 2],
    pub daddr: [u64; 2],
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
}

/// What the last step of a segment saw.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Followed {
    pub key: SegmentKey,
    pub time_ns: u64,
    /// The `struct sk_buff`, its buffer, and where the payload lay.
    pub skb: u64,
    pub head: u64,
    pub payload: u64,
    pub headroom: u32,
    /// Bytes that were read so far.
    pub read: u32,
    /// How many buffers it had, and how often its payload was copied.
    pub buffers: u32,
    pub copies: u32,
    pub unit: u32,
    pub family: u32,
    pub mapped: u32,
    pub reserved: u32,
}

/// A buffer of a followed segment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Buffer {
    pub segment: u32,
    pub seq: u32,
    pub number: u32,
    pub reserved: u32,
}

/// A call that wrote to a socket.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Written {
    pub time_ns: u64,
    pub comm: [u8; 16],
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    /// `write_seq` as the call found it, and how many bytes it writes.
    pub seq: u32,
    pub size: u32,
    /// Of the message: `MSG_…`.
    pub flags: u32,
    pub via: u32,
    pub reserved: u32,
}

/// Runs at each write: what the call is about to copy is remembered where its segments would be followed.
#[inline(always)]
pub fn written(sk: u64, message: u64, size: u64, via: Program) {
    let Some(sock) = Probe::tcp(sk as *const u8) else {
        return;
    };
    let tuple = sock.tuple();
    let netns = sock.netns();
    if !passes(&tuple, netns) && !passes(&tuple.reversed(), netns) {
        return;
    }
    let task = Task::current();
    let note = Written {
        time_ns: now(),
        comm: task.comm,
        pid: task.pid,
        tid: task.tid,
        uid: task.uid,
        seq: sock.write_seq(),
        size: size as u32,
        flags: Obj::<Probe>::new(message as *const u8).get(off!(msg_flags)),
        via: via as u32,
        reserved: 0,
    };
    // One that finds no room takes the place of the oldest.
    let _ = WRITTEN.insert(sk, note, 0);
}

/// A segment on its way into the receive queue; how that ends its return tells. Only of buffers that are followed.
#[inline(always)]
pub fn queueing(sk: u64, skb: u64) {
    let call = Call { object: skb, other: sk };
    if BUFFERS.get_ptr(head(skb)).is_none() {
        return;
    }
    let key = thread();
    // A softirq that queues while its thread does takes the note away.
    if QUEUEING.insert(key, call, u64::from(BPF_NOEXIST)).is_err() {
        missed(Missed::CallTable);
        let _ = QUEUEING.insert(key, call, 0);
    }
}

/// The same, at its return.
#[inline(always)]
pub fn queued(merged: u64, via: Program) {
    let key = thread();
    // SAFETY: only this thread writes its entry.
    let Some(call) = (unsafe { QUEUEING.get(key) }).copied() else {
        return;
    };
    let _ = QUEUEING.remove(key);
    step(call.object, call.other, place::QUEUED, via, merged);
}

#[inline(always)]
fn head(skb: u64) -> u64 {
    Layout::head(Obj::new(skb as *const u8))
}

/// A hook saw an sk_buff. `sk` is 0 where it does not know the socket; `more` is what only this place has.
#[inline(always)]
pub fn step(skb: u64, sk: u64, place: u8, via: Program, more: u64) {
    one_step(skb, sk, u64::from(place) | (via as u64) << 8, more);
}

/// Not inlined: there are forty programs, and one copy of this in each would be most of the object. In three parts, for
/// the stack is small.
#[inline(never)]
fn one_step(skb: u64, sk: u64, what: u64, more: u64) -> u64 {
    let number = choose(skb, sk, what);
    if number != 0 {
        if what as u8 == place::TRANSMIT {
            begins_with_call(sk, number);
        }
        tell(skb, sk, what, more, number);
    }
    0
}

/// Where the headers are at a place.
#[inline(always)]
fn headers(at: u8) -> Headers {
    match at {
        place::TRANSMIT => Headers::None,
        place::TO_IP => Headers::TcpAtData,
        place::FROM_IP | place::NETIF_RX | place::RECEIVED | place::IP_RCV => Headers::AtData,
        _ => Headers::Noted,
    }
}

/// The device that a place knows of.
#[inline(always)]
fn device(skb: Obj<Probe>, at: u8) -> Device {
    match at {
        place::FROM_IP => Device::of_route(skb),
        place::TO_DEVICE | place::XMIT | place::NETIF_RX | place::RECEIVED | place::IP_RCV | place::TCP_RCV => {
            Device::of(skb)
        }
        // TCP keeps other things there.
        _ => Device::NONE,
    }
}

/// The socket, and the namespace where the step is taken.
#[inline(always)]
fn whereabouts(skb: Obj<Probe>, sk: u64, at: u8) -> (Option<Sock<Probe>>, u32) {
    let sk = if sk == 0 && (place::sends(at) || at == place::READ) {
        owner(skb)
    } else {
        sk
    };
    let sock = Probe::tcp(sk as *const u8);
    let netns = match (at, sock) {
        (place::TRANSMIT | place::TO_IP | place::BACKLOG | place::QUEUED | place::READ, Some(sock)) => sock.netns(),
        _ => device(skb, at).netns(),
    };
    (sock, netns)
}

impl Followed {
    /// The four-tuple as the end has it where the step is taken.
    #[inline(always)]
    fn tuple(&self, sends: bool) -> Tuple {
        let tuple = Tuple {
            saddr: self.key.saddr,
            daddr: self.key.daddr,
            sport: self.key.sport,
            dport: self.key.dport,
            family: self.family as u8,
            mapped: self.mapped != 0,
        };
        if sends { tuple } else { tuple.reversed() }
    }

    /// The number of a buffer among those of the segment.
    #[inline(always)]
    fn buffer(&mut self, head: u64, segment: u32) -> u32 {
        // SAFETY: a few words.
        if let Some(known) = unsafe { BUFFERS.get(head) }
            && known.segment == segment
        {
            return known.number;
        }
        self.buffers += 1;
        let buffer = Buffer {
            segment,
            seq: self.key.seq,
            number: self.buffers,
            reserved: 0,
        };
        // One that finds no room takes the place of the oldest.
        let _ = BUFFERS.insert(head, buffer, 0);
        self.buffers
    }
}
