//! What is told of a step, and remembered for the next.

use bytemuck::Zeroable as _;
use socklife_abi::{
    event::{SkbStep, UNKNOWN, UNKNOWN_DEPTH},
    step::{MERGED, MOVE_KNOWN, READ_ALL, ZERO_COPY, kin, place, unit},
};

use super::{device, headers, whereabouts};
use crate::{
    emit::{Place, emit_at},
    maps::{BUFFERS, FOLLOWED, SEGMENTS, WRITTEN},
    mem::{Mem as _, Obj, Probe},
    packet::layers::{Layers, Layout},
    requests::now,
    task::Task,
};

/// `MSG_ZEROCOPY`, and `MSG_SPLICE_PAGES` where the kernel has it.
const NO_COPY: u32 = 0x0400_0000 | 0x0800_0000;

/// The call that wrote a segment's first byte is its first step.
#[inline(never)]
pub fn begins_with_call(sk: u64, number: u64) -> u64 {
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
        via: note.via as u16,
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
pub fn tell(skb: u64, sk: u64, what: u64, more: u64, number: u64) -> u64 {
    let (at, via, number) = (what as u8, (what >> 8) as u16, number as u32);
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
