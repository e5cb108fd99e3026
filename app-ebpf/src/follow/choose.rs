//! Which segments are followed.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{counter::Counter, event::Kind, step::place, table::Following};

use super::{Followed, SegmentKey, headers, whereabouts};
use crate::{
    emit::passes,
    lives,
    maps::{BUFFERS, FOLLOWED, FOLLOWING, LEFT_OUT, SEGMENTS, WRITTEN, add, count, global},
    mem::{Mem as _, Obj, Probe},
    packet::layers::{Layers, Layout},
    requests::now,
    sock::Sock,
    task::Task,
};

/// How often another CPU may take the number that this one wants.
const TRIES: u32 = 4;

/// Which segment it is, or 0 for one that is not followed.
#[inline(never)]
pub fn choose(skb: u64, sk: u64, what: u64) -> u64 {
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
    let tuple = if segment.tuple.family != 0 {
        segment.tuple
    } else if let Some(sock) = Probe::tcp(sk as *const u8) {
        sock.tuple()
    } else {
        return 0;
    };
    // Most of what passes here ends here. Either end's view will do, and the namespace counts where one begins.
    let netns = global!(FILTER.netns);
    if !(passes(&tuple, netns) || passes(&tuple.reversed(), netns)) {
        return 0;
    }
    let key = SegmentKey {
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        sport: tuple.sport,
        dport: tuple.dport,
        seq: segment.seq,
    };
    // SAFETY: a word.
    if let Some(number) = unsafe { SEGMENTS.get(key) } {
        return u64::from(*number);
    }
    // Whoever reads it sees only its end.
    if at == place::READ {
        return 0;
    }
    let (sock, here) = whereabouts(skb, sk, at);
    if (netns != 0 && here != netns) || !is_of_process(sock, at) {
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
    wrote || writes || lives::of(sock.key(), lives::cookie(sock.key())).wanted != 0
}

/// A number for another segment, if there may be one, or 0.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied onto the stack, which has no room for it"
)]
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
