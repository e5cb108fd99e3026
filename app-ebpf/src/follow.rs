//! Segments that are followed through the layers, from one sk_buff to the next.

use aya_ebpf::bindings::BPF_NOEXIST;
use bytemuck::Zeroable as _;
use socklife_abi::{
    counter::{Counter, Missed},
    event::{Kind, SkbStep, UNKNOWN, UNKNOWN_DEPTH},
    program::Program,
    step::{MERGED, MOVE_KNOWN, READ_ALL, ZERO_COPY, kin, place, unit},
    table::Following,
};

use crate::{
    emit::{Place, emit_at, passes},
    lives,
    maps::{BUFFERS, Call, FOLLOWED, FOLLOWING, LEFT_OUT, QUEUEING, SEGMENTS, WRITTEN, add, count, global, missed},
    mem::{Mem, Obj, Probe, off},
    packet::layers::{Device, Headers, Layers, Layout, owner},
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

/// `MSG_ZEROCOPY`, and `MSG_SPLICE_PAGES` where the kernel has it.
const NO_COPY: u32 = 0x0400_0000 | 0x0800_0000;

/// How often another CPU may take the number that this one wants.
const TRIES: u32 = 4;

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

/// Which segment it is, or 0 for one that is not followed.
#[inline(never)]
fn choose(skb: u64, sk: u64, what: u64) -> u64 {
    let at = what as u8;
    let skb = Obj::<Probe>::new(skb as *const u8);
    let buffer = Layout::head(skb);
    let Some(following) = FOLLOWING.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a value of FOLLOWING. Before everything is attached nothing is followed: it would begin halfway.
    if unsafe { (*following).rate } == 0 {
        return 0;
    }
    // SAFETY: a few words.
    let known = unsafe { BUFFERS.get(buffer) };
    if at == place::READ && known.is_none() {
        return 0;
    }
    let Some(segment) = Layers::of(skb, headers(at)) else {
        return 0;
    };
    if segment.payload == 0 {
        return 0;
    }
    // Where they differ the buffer was given back and holds something else.
    if let Some(known) = known
        && known.seq == segment.seq
    {
        return u64::from(known.segment);
    }
    let (sock, netns) = whereabouts(skb, sk, at);
    let tuple = match sock {
        _ if segment.tuple.family != 0 => segment.tuple,
        Some(sock) => sock.tuple(),
        None => return 0,
    };
    let key = SegmentKey {
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        sport: tuple.sport,
        dport: tuple.dport,
        seq: segment.seq,
    };
    // SAFETY: a word.
    if let Some(number) = unsafe { SEGMENTS.get(&key) } {
        return u64::from(*number);
    }
    // Either end's view will do.
    if at == place::READ || !(passes(&tuple, netns) || passes(&tuple.reversed(), netns)) || !is_of_process(sock, at) {
        return 0;
    }
    let number = claim(following, &key);
    if let Some(followed) = FOLLOWED.get_ptr_mut(number) {
        // SAFETY: a value of FOLLOWED that nobody else knows yet.
        unsafe {
            (*followed).key = key;
            (*followed).family = u32::from(tuple.family);
            (*followed).mapped = u32::from(tuple.mapped);
        }
        let _ = SEGMENTS.insert(key, number, 0);
        return u64::from(number);
    }
    0
}

/// Whether the process of `--pid` writes it, if there is one.
#[inline(always)]
fn is_of_process(sock: Option<Sock<Probe>>, at: u8) -> bool {
    let wanted = global!(FILTER.pid);
    if wanted == 0 {
        return true;
    }
    let Some(sock) = sock else {
        return false;
    };
    if !place::sends(at) {
        return false;
    }
    // SAFETY: a few words.
    let wrote = unsafe { WRITTEN.get(sock.key()) }.is_some_and(|note| note.pid == wanted);
    let writes = sock.owned_by_user() && Task::pid() == wanted;
    wrote || writes || lives::of(sock.key()).wanted != 0
}

/// A number for another segment, if there may be one, or 0.
#[inline(always)]
fn claim(following: *mut Following, key: &SegmentKey) -> u32 {
    // SAFETY: a value of FOLLOWING; where two CPUs count at once, there are a few more.
    let following = unsafe { &mut *following };
    if following.started >= following.most {
        return 0;
    }
    let second = (now() >> 30) as u32;
    if following.second != second {
        following.second = second;
        following.shown = 0;
    }
    if LEFT_OUT.get_ptr(key).is_some() {
        return 0;
    }
    if following.shown >= following.rate {
        left_out(key);
        return 0;
    }
    following.shown += 1;
    let started = following.started as u32;
    add(&raw mut following.started, 1);
    for i in 1..=TRIES {
        let number = started.wrapping_add(i);
        // Another CPU may have taken it.
        if FOLLOWED.insert(number, &NOTHING, u64::from(BPF_NOEXIST)).is_ok() {
            return number;
        }
    }
    left_out(key);
    0
}

#[inline(always)]
fn left_out(key: &SegmentKey) {
    count(Counter::Held(Kind::SkbStep as usize));
    // One that finds no room takes the place of the oldest.
    let _ = LEFT_OUT.insert(key, 0, 0);
}

/// A value to begin with; the stack has no room for it.
static NOTHING: Followed = Followed {
    key: SegmentKey {
        saddr: [0; 2],
        daddr: [0; 2],
        sport: 0,
        dport: 0,
        seq: 0,
    },
    time_ns: 0,
    skb: 0,
    head: 0,
    payload: 0,
    headroom: 0,
    read: 0,
    buffers: 0,
    copies: 0,
    unit: 0,
    family: 0,
    mapped: 0,
    reserved: 0,
};

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
}

/// The call that wrote a segment's first byte is its first step.
#[inline(never)]
fn begins_with_call(sk: u64, number: u64) -> u64 {
    let Some(followed) = FOLLOWED.get_ptr_mut(number as u32) else {
        return 0;
    };
    // SAFETY: a value of FOLLOWED; the steps of one segment come one after the other.
    let followed = unsafe { &mut *followed };
    // SAFETY: a few words.
    let (Some(note), Some(sock)) = (unsafe { WRITTEN.get(sk) }, Probe::tcp(sk as *const u8)) else {
        return 0;
    };
    let seq = followed.key.seq;
    if followed.time_ns != 0 || seq.wrapping_sub(note.seq) >= note.size {
        return 0;
    }
    followed.time_ns = note.time_ns;
    let seen = Place {
        time_ns: note.time_ns,
        cookie: Probe::cookie(sock),
        tuple: followed.tuple(true),
        netns: sock.netns(),
        via: note.via as u8,
    };
    let task = Task {
        pid: note.pid,
        tid: note.tid,
        uid: note.uid,
        comm: note.comm,
    };
    let step = SkbStep {
        since_ns: UNKNOWN,
        segment: number as u32,
        seq,
        headroom: UNKNOWN_DEPTH,
        len: note.size,
        place: place::WRITTEN,
        unit: unit::DATA,
        flags: if note.flags & NO_COPY == 0 { 0 } else { ZERO_COPY },
        ..SkbStep::zeroed()
    };
    emit_at(&seen, task, step);
    0
}

/// Tells of the step, and remembers it for the next.
#[inline(never)]
fn tell(skb: u64, sk: u64, what: u64, more: u64, number: u64) -> u64 {
    let (at, via, number) = (what as u8, (what >> 8) as u8, number as u32);
    let skb = Obj::<Probe>::new(skb as *const u8);
    let Some(followed) = FOLLOWED.get_ptr_mut(number) else {
        return 0;
    };
    // SAFETY: as above.
    let followed = unsafe { &mut *followed };
    let Some(segment) = Layers::of(skb, headers(at)) else {
        return 0;
    };
    let layout = Layout::of(skb);
    let same_buffer = layout.head == followed.head;
    let kin = if followed.skb == 0 {
        kin::FIRST
    } else if !same_buffer {
        kin::COPY
    } else if followed.skb != skb.ptr() as u64 {
        kin::CLONE
    } else {
        kin::SAME
    };
    let buffer = followed.buffer(layout.head, number);
    if followed.payload != 0 && followed.payload != layout.payload {
        followed.copies += 1;
    }
    let unit = match segment.headers {
        [0, ..] => unit::DATA,
        [_, 0, _] => unit::SEGMENT,
        [_, _, 0] => unit::PACKET,
        _ => unit::FRAME,
    };
    let (mut flags, mut moved, mut read) = (0, 0, 0);
    if same_buffer {
        flags |= MOVE_KNOWN;
        moved = followed.headroom.wrapping_sub(layout.headroom) as i32;
    }
    if at == place::READ {
        read = more as u32;
        // Peeked at, it counts twice; whoever takes its last bytes gets them all the same.
        followed.read += read;
        if followed.read >= layout.len {
            flags |= READ_ALL;
        }
    }
    if at == place::QUEUED && more != 0 {
        flags |= MERGED;
    }
    let time_ns = now();
    let since_ns = if followed.time_ns == 0 {
        UNKNOWN
    } else {
        // Clocks of two CPUs may disagree by a little: never negative.
        time_ns.saturating_sub(followed.time_ns)
    };
    let before = followed.unit as u8;
    followed.time_ns = time_ns;
    followed.skb = skb.ptr() as u64;
    followed.head = layout.head;
    followed.payload = layout.payload;
    followed.headroom = layout.headroom;
    followed.unit = u32::from(unit);
    let (sock, netns) = whereabouts(skb, sk, at);
    let device = device(skb, at);
    let task = match (at, sock) {
        (place::READ, _) => Task::current(),
        (place::TRANSMIT, Some(sock)) if sock.owned_by_user() => Task::current(),
        _ => Task::NONE,
    };
    let seen = Place {
        time_ns,
        cookie: sock.map_or(0, Probe::cookie),
        tuple: followed.tuple(place::sends(at)),
        netns,
        via,
    };
    emit_at(
        &seen,
        task,
        SkbStep {
            since_ns,
            segment: number,
            seq: segment.seq,
            payload: segment.payload,
            headroom: layout.headroom,
            len: layout.len,
            data_len: layout.data_len,
            size: layout.size,
            moved,
            read,
            buffer,
            copies: followed.copies,
            ifindex: device.index(),
            gso_size: layout.gso_size,
            gso_segs: layout.gso_segs,
            tcp_header: segment.headers[0],
            ip_header: segment.headers[1],
            link_header: segment.headers[2],
            place: at,
            unit,
            before,
            kin,
            flags,
            reserved: 0,
            dev: device.name(),
        },
    );
    if flags & (MERGED | READ_ALL) != 0 {
        let _ = SEGMENTS.remove(followed.key);
        let _ = BUFFERS.remove(layout.head);
        let _ = FOLLOWED.remove(number);
    }
    0
}

impl Followed {
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
