//! What is remembered of sockets that are gone, whose end nobody saw: found by looking at each that is remembered.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_seq_write};
use socklife_abi::{
    event::state,
    table::{Gone, Life, Tally, phase},
};

use crate::{
    maps::{STANDING, add},
    mem::{Obj, Probe, off},
    probes::snapshot::IterMeta,
};

/// `struct bpf_iter__bpf_map_elem`: pointers, each in eight bytes.
#[repr(C)]
pub struct IterElement<T> {
    pub meta: *const IterMeta,
    pub map: *const u8,
    pub key: *const u64,
    pub value: *const T,
}

/// The address, and what is remembered, of one element; `None` behind the last.
#[inline(always)]
fn element<T>(context: *const IterElement<T>) -> Option<(u64, *const T)> {
    // SAFETY: the program's own context.
    let (key, value) = unsafe {
        (
            (&raw const (*context).key).read_volatile(),
            (&raw const (*context).value).read_volatile(),
        )
    };
    if key.is_null() || value.is_null() {
        return None;
    }
    // SAFETY: the element's key.
    Some((unsafe { key.read_volatile() }, value))
}

#[inline(always)]
fn write<C, T>(context: *const IterElement<C>, record: &T) {
    // SAFETY: the program's own context.
    unsafe {
        let meta = (&raw const (*context).meta).read_volatile();
        let seq = (&raw const (*meta).seq).read_volatile();
        bpf_seq_write(
            seq,
            core::ptr::from_ref(record).cast_mut().cast(),
            size_of::<T>() as u32,
        );
    }
}

/// The sock there is another's by now, or in none of the states of a connection.
#[inline(always)]
fn is_gone(key: u64, life: &Life) -> bool {
    let sock = Obj::<Probe>::new(key as *const u8);
    let cookie: u64 = sock.get(off!(cookie));
    if life.cookie != 0 && cookie != life.cookie {
        return true;
    }
    let state = u32::from(sock.get(off!(state)));
    match life.phase {
        phase::CONNECTING | phase::OPEN => !(state::ESTABLISHED..=state::CLOSING).contains(&state) || closed(state),
        phase::CHILD => state == state::CLOSE,
        _ => false,
    }
}

#[inline(always)]
fn closed(state: u32) -> bool {
    state == state::CLOSE || state == state::LISTEN
}

/// Writes each life whose socket is gone, and counts the others by phase. User space takes them out.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub fn lives_iter(context: *const IterElement<Life>) -> i32 {
    let Some((key, value)) = element(context) else {
        return 0;
    };
    // SAFETY: the element's value.
    let life = unsafe { value.read_volatile() };
    if is_gone(key, &life) {
        write(context, &Gone { key, life });
        return 0;
    }
    stands(life.netns, life.phase);
    0
}

#[inline(always)]
fn stands(netns: u32, phase: u8) {
    if STANDING.get_ptr(netns).is_none() {
        let _ = STANDING.insert(netns, [0; 5], u64::from(BPF_NOEXIST));
    }
    if let Some(phases) = STANDING.get_ptr_mut(netns)
        && phase <= phase::OVER
    {
        // SAFETY: within the value.
        add(unsafe { phases.cast::<u64>().add(usize::from(phase)) }, 1);
    }
}

/// Writes the address of each listener whose socket is gone, or does not listen any more.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub fn listeners_iter(context: *const IterElement<Tally>) -> i32 {
    let Some((key, value)) = element(context) else {
        return 0;
    };
    let sock = Obj::<Probe>::new(key as *const u8);
    let cookie: u64 = sock.get(off!(cookie));
    // SAFETY: the element's value.
    let known = unsafe { (&raw const (*value).queues.listener).read_volatile() };
    if u32::from(sock.get(off!(state))) != state::LISTEN || (known != 0 && cookie != known) {
        write(context, &key);
    }
    0
}
