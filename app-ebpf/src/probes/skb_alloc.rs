//! `sk_buff`s: allocated, handed to a device, taken by a socket, freed. Attached only where somebody counts them.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_stack,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::Array,
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
    },
};
use socklife_abi::{event::UNKNOWN_DEPTH, kernel::NO_ARG, program::Program, skb::direction};

use crate::{
    args::{Registers, arg, caller, slot, tracepoint_slot},
    maps::{SKB_CALLS, SkbCall, global},
    mem::{Mem as _, Obj, Probe, off},
    packet,
    skbs::{self, Made},
};

/// The functions that a kretprobe returns from.
const ALLOC: u32 = 0;
const CLONE: u32 = 1;
const STREAM: u32 = 2;
/// It may call one of the others.
const OUTER: u32 = 3;

#[inline(always)]
fn truesize(skb: u64) -> u32 {
    packet::truesize(Obj::<Probe>::new(skb as *const u8))
}

#[inline(always)]
fn alloc(context: &FExitContext, via: Program) -> i32 {
    let skb = slot(context, arg!(alloc_skb_ret));
    let made = Made {
        skb,
        original: 0,
        caller: caller(context, arg!(alloc_skb_ret)),
        bytes: slot(context, arg!(alloc_skb_size)) as u32,
        truesize: truesize(skb),
        first: via as u16 == Program::SkbAllocFexit as u16,
    };
    skbs::made(&made, via);
    0
}

// Where a task can be interrupted in the program, everything twice: the second finds done what the first did.

#[fexit(function = "__alloc_skb")]
pub fn skb_alloc_fexit(context: FExitContext) -> i32 {
    alloc(&context, Program::SkbAllocFexit)
}

#[fexit(function = "__alloc_skb")]
pub fn skb_alloc_fexit_second(context: FExitContext) -> i32 {
    alloc(&context, Program::SkbAllocFexitSecond)
}

#[inline(always)]
fn clone(context: &FExitContext, via: Program) -> i32 {
    let skb = slot(context, arg!(skb_clone_ret));
    let made = Made {
        skb,
        original: slot(context, arg!(skb_clone_skb)),
        caller: caller(context, arg!(skb_clone_ret)),
        bytes: 0,
        truesize: truesize(skb),
        first: via as u16 == Program::SkbCloneFexit as u16,
    };
    skbs::made(&made, via);
    0
}

#[fexit(function = "skb_clone")]
pub fn skb_clone_fexit(context: FExitContext) -> i32 {
    clone(&context, Program::SkbCloneFexit)
}

#[fexit(function = "skb_clone")]
pub fn skb_clone_fexit_second(context: FExitContext) -> i32 {
    clone(&context, Program::SkbCloneFexitSecond)
}

// The function that makes what a TCP socket sends has one name or the other.

#[inline(always)]
fn stream(context: &FExitContext, via: Program) -> i32 {
    let (sk, skb) = (slot(context, arg!(tcp_stream_sk)), slot(context, arg!(tcp_stream_ret)));
    skbs::belongs(skb, sk, direction::SEND, via);
    0
}

#[inline(always)]
fn old_stream(context: &FExitContext, via: Program) -> i32 {
    let (sk, skb) = (slot(context, arg!(sk_stream_sk)), slot(context, arg!(sk_stream_ret)));
    skbs::belongs(skb, sk, direction::SEND, via);
    0
}

#[fexit(function = "tcp_stream_alloc_skb")]
pub fn skb_stream_fexit(context: FExitContext) -> i32 {
    stream(&context, Program::SkbStreamFexit)
}

#[fexit(function = "tcp_stream_alloc_skb")]
pub fn skb_stream_fexit_second(context: FExitContext) -> i32 {
    stream(&context, Program::SkbStreamFexitSecond)
}

#[fexit(function = "sk_stream_alloc_skb")]
pub fn skb_old_stream_fexit(context: FExitContext) -> i32 {
    old_stream(&context, Program::SkbOldStreamFexit)
}

#[fexit(function = "sk_stream_alloc_skb")]
pub fn skb_old_stream_fexit_second(context: FExitContext) -> i32 {
    old_stream(&context, Program::SkbOldStreamFexitSecond)
}

/// Functions of the receive path; they may call one another, or `__alloc_skb`.
#[inline(always)]
fn outer(context: &FExitContext, returned: u8, bytes: u32, via: Program) -> i32 {
    let skb = slot(context, returned);
    let made = Made {
        skb,
        original: 0,
        caller: caller(context, returned),
        bytes,
        truesize: truesize(skb),
        first: false,
    };
    skbs::made(&made, via);
    0
}

#[fexit(function = "napi_alloc_skb")]
pub fn skb_napi_fexit(context: FExitContext) -> i32 {
    let bytes = slot(&context, arg!(napi_alloc_len)) as u32;
    outer(&context, arg!(napi_alloc_ret), bytes, Program::SkbNapiFexit)
}

#[fexit(function = "__napi_alloc_skb")]
pub fn skb_old_napi_fexit(context: FExitContext) -> i32 {
    let bytes = slot(&context, arg!(old_napi_alloc_len)) as u32;
    outer(&context, arg!(old_napi_alloc_ret), bytes, Program::SkbOldNapiFexit)
}

#[fexit(function = "napi_build_skb")]
pub fn skb_napi_build_fexit(context: FExitContext) -> i32 {
    outer(&context, arg!(napi_build_ret), 0, Program::SkbNapiBuildFexit)
}

#[fexit(function = "build_skb")]
pub fn skb_build_fexit(context: FExitContext) -> i32 {
    outer(&context, arg!(build_ret), 0, Program::SkbBuildFexit)
}

#[fexit(function = "__build_skb")]
pub fn skb_inner_build_fexit(context: FExitContext) -> i32 {
    outer(&context, arg!(inner_build_ret), 0, Program::SkbInnerBuildFexit)
}

#[fexit(function = "slab_build_skb")]
pub fn skb_slab_build_fexit(context: FExitContext) -> i32 {
    outer(&context, arg!(slab_build_ret), 0, Program::SkbSlabBuildFexit)
}

/// Remembers a call until it returns.
#[inline(always)]
fn entered(registers: Registers, what: u32, object: u64, bytes: u32) {
    let stack = registers.stack();
    // SAFETY: read by the helper, which checks the address.
    let caller = unsafe { Probe::read(stack as *const u64) };
    let call = SkbCall {
        caller,
        object,
        bytes,
        what,
    };
    // One that finds no room takes the place of the oldest.
    let _ = SKB_CALLS.insert(stack, call, 0);
}

#[kprobe]
pub fn skb_alloc_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    entered(registers, ALLOC, 0, registers.arg(arg!(alloc_skb_size)) as u32);
    0
}

#[kprobe]
pub fn skb_clone_kprobe(context: ProbeContext) -> u32 {
    let registers = Registers::of(&context);
    entered(registers, CLONE, registers.arg(arg!(skb_clone_skb)), 0);
    0
}

#[inline(always)]
fn stream_entered(context: &ProbeContext, _: Program) {
    let registers = Registers::of(context);
    // The first argument of both.
    entered(registers, STREAM, registers.arg(0), 0);
}

#[inline(always)]
fn napi_entered(context: &ProbeContext, _: Program) {
    let registers = Registers::of(context);
    // The second argument of both.
    entered(registers, OUTER, 0, registers.arg(1) as u32);
}

#[inline(always)]
fn build_entered(context: &ProbeContext, _: Program) {
    entered(Registers::of(context), OUTER, 0, 0);
}

at_each!(kprobe(ProbeContext) stream_entered:
    skb_stream_kprobe = SkbStreamKprobe, skb_old_stream_kprobe = SkbOldStreamKprobe);
at_each!(kprobe(ProbeContext) napi_entered:
    skb_napi_kprobe = SkbNapiKprobe, skb_old_napi_kprobe = SkbOldNapiKprobe);
at_each!(kprobe(ProbeContext) build_entered:
    skb_napi_build_kprobe = SkbNapiBuildKprobe,
    skb_build_kprobe = SkbBuildKprobe,
    skb_inner_build_kprobe = SkbInnerBuildKprobe,
    skb_slab_build_kprobe = SkbSlabBuildKprobe);

at_each!(kretprobe(RetProbeContext) returned:
    skb_alloc_kretprobe = SkbAllocKretprobe,
    skb_clone_kretprobe = SkbCloneKretprobe,
    skb_stream_kretprobe = SkbStreamKretprobe,
    skb_old_stream_kretprobe = SkbOldStreamKretprobe,
    skb_napi_kretprobe = SkbNapiKretprobe,
    skb_old_napi_kretprobe = SkbOldNapiKretprobe,
    skb_napi_build_kretprobe = SkbNapiBuildKretprobe,
    skb_build_kretprobe = SkbBuildKretprobe,
    skb_inner_build_kretprobe = SkbInnerBuildKretprobe,
    skb_slab_build_kretprobe = SkbSlabBuildKretprobe);

#[inline(always)]
fn returned(context: &RetProbeContext, via: Program) {
    let registers = Registers::of(context);
    // The return took its address from the stack.
    let stack = registers.stack().wrapping_sub(8);
    // SAFETY: only this call writes its entry.
    let Some(call) = (unsafe { SKB_CALLS.get(stack) }).copied() else {
        return;
    };
    let _ = SKB_CALLS.remove(stack);
    let skb = registers.returned();
    if call.what == STREAM {
        skbs::belongs(skb, call.object, direction::SEND, via);
        return;
    }
    let made = Made {
        skb,
        original: call.object,
        caller: call.caller,
        bytes: call.bytes,
        truesize: truesize(skb),
        first: call.what != OUTER,
    };
    skbs::made(&made, via);
}

/// The slab of pairs, as far as it is known. Written at the first allocation.
#[map]
static PAIRS: Array<u64> = Array::with_max_entries(1, 0);

/// How many return addresses up from the allocator its caller is looked for.
const FRAMES: usize = 6;

/// The function that called `__alloc_skb`.
#[inline(always)]
fn caller_of_alloc(context: &RawTracePointContext) -> u64 {
    let mut frames = [0_u64; FRAMES];
    // SAFETY: a place of the size that is named.
    unsafe {
        bpf_get_stack(
            context.as_ptr(),
            frames.as_mut_ptr().cast(),
            size_of::<[u64; FRAMES]>() as u32,
            0,
        )
    };
    let mut within = false;
    for frame in frames {
        let here = is_alloc_skb(frame);
        if within && !here {
            return frame;
        }
        within = here;
    }
    0
}

#[inline(always)]
fn is_alloc_skb(address: u64) -> bool {
    address >= global!(CODE.alloc_from) && address < global!(CODE.alloc_to)
}

/// TCP sends from pairs: an `sk_buff` with its first clone behind it in one object (`struct sk_buff_fclones`), which no cache
/// of the network layer keeps from the slab. The slab may be shared with others of its size.
#[inline(always)]
fn pair(context: &RawTracePointContext, first: Program, via: Program) -> i32 {
    if !is_alloc_skb(slot(context, 0)) {
        return 0;
    }
    let pair = slot(context, 1);
    let size = (off!(pair_ref).bytes() + 4 + 7) & !7;
    let cache = arg!(cache_alloc_cache);
    let object_size = if cache == NO_ARG {
        // Its third argument is the size itself.
        slot(context, 2) as u32
    } else {
        let cache = tracepoint_slot(context, cache);
        let object_size = Obj::<Probe>::new(cache as *const u8).get(off!(cache_object_size));
        if object_size >= size
            && object_size < size + 64
            && let Some(known) = PAIRS.get_ptr_mut(0)
        {
            // SAFETY: a value of PAIRS.
            unsafe { *known = cache };
        }
        object_size
    };
    if object_size < size || object_size >= size + 64 {
        return 0;
    }
    let first = via as u16 == first as u16;
    // To walk the stack costs more than all the rest.
    if !first && skbs::is_alive(pair) {
        return 0;
    }
    let made = Made {
        skb: pair,
        original: 0,
        caller: caller_of_alloc(context),
        bytes: UNKNOWN_DEPTH,
        truesize: 0,
        first,
    };
    skbs::made(&made, via);
    0
}

#[raw_tracepoint(tracepoint = "kmem_cache_alloc")]
pub fn skb_pair_raw_tp(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairRawTp, Program::SkbPairRawTp)
}

#[raw_tracepoint(tracepoint = "kmem_cache_alloc")]
pub fn skb_pair_raw_tp_second(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairRawTp, Program::SkbPairRawTpSecond)
}

/// The slab is busy: a task, another that gets the CPU, and a softirq may be here at once.
#[raw_tracepoint(tracepoint = "kmem_cache_alloc")]
pub fn skb_pair_raw_tp_third(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairRawTp, Program::SkbPairRawTpThird)
}

#[raw_tracepoint(tracepoint = "kmem_cache_alloc_node")]
pub fn skb_pair_node_raw_tp(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairNodeRawTp, Program::SkbPairNodeRawTp)
}

#[raw_tracepoint(tracepoint = "kmem_cache_alloc_node")]
pub fn skb_pair_node_raw_tp_second(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairNodeRawTp, Program::SkbPairNodeRawTpSecond)
}

#[raw_tracepoint(tracepoint = "kmem_cache_alloc_node")]
pub fn skb_pair_node_raw_tp_third(context: RawTracePointContext) -> i32 {
    pair(&context, Program::SkbPairNodeRawTp, Program::SkbPairNodeRawTpThird)
}

#[inline(always)]
fn pair_freed(context: &RawTracePointContext, via: Program) -> i32 {
    let cache = arg!(cache_free_cache);
    // Where the tracepoint does not tell the slab it is looked up at each free of the machine.
    if cache != NO_ARG && Some(&tracepoint_slot(context, cache)) != PAIRS.get(0) {
        return 0;
    }
    skbs::ended(slot(context, 1), via);
    0
}

#[raw_tracepoint(tracepoint = "kmem_cache_free")]
pub fn skb_pair_free_raw_tp(context: RawTracePointContext) -> i32 {
    pair_freed(&context, Program::SkbPairFreeRawTp)
}

#[raw_tracepoint(tracepoint = "kmem_cache_free")]
pub fn skb_pair_free_raw_tp_second(context: RawTracePointContext) -> i32 {
    pair_freed(&context, Program::SkbPairFreeRawTpSecond)
}

#[raw_tracepoint(tracepoint = "kmem_cache_free")]
pub fn skb_pair_free_raw_tp_third(context: RawTracePointContext) -> i32 {
    pair_freed(&context, Program::SkbPairFreeRawTpThird)
}

// Every `sk_buff` passes here once at its end, whether its data go with it or were taken over (`kfree_skb_partial`), except
// those of `rest_ended`.

#[fentry(function = "skb_release_head_state")]
pub fn skb_free_fentry(context: FEntryContext) -> i32 {
    skbs::ended(slot(&context, arg!(release_head_skb)), Program::SkbFreeFentry);
    0
}

#[fentry(function = "skb_release_head_state")]
pub fn skb_free_fentry_second(context: FEntryContext) -> i32 {
    skbs::ended(slot(&context, arg!(release_head_skb)), Program::SkbFreeFentrySecond);
    0
}

#[kprobe]
pub fn skb_free_kprobe(context: ProbeContext) -> u32 {
    skbs::ended(
        Registers::of(&context).arg(arg!(release_head_skb)),
        Program::SkbFreeKprobe,
    );
    0
}

/// UDP let its socket and route go before, or GRO took its data over: the first argument of both functions.
#[inline(always)]
fn rest_ended(context: &ProbeContext, via: Program) {
    skbs::ended(Registers::of(context).arg(0), via);
}

at_each!(kprobe(ProbeContext) rest_ended: skb_rest_kprobe = SkbRestKprobe, skb_stolen_kprobe = SkbStolenKprobe);

#[btf_tracepoint(function = "net_dev_queue")]
pub fn skb_queued_tp_btf(context: BtfTracePointContext) -> i32 {
    skbs::queued(slot(&context, 0), Program::SkbQueuedTpBtf);
    0
}

#[btf_tracepoint(function = "net_dev_queue")]
pub fn skb_queued_tp_btf_second(context: BtfTracePointContext) -> i32 {
    skbs::queued(slot(&context, 0), Program::SkbQueuedTpBtfSecond);
    0
}

#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn skb_queued_raw_tp(context: RawTracePointContext) -> i32 {
    skbs::queued(slot(&context, 0), Program::SkbQueuedRawTp);
    0
}

#[inline(always)]
fn received(sk: u64, skb: u64, via: Program) -> i32 {
    skbs::belongs(skb, sk, direction::RECEIVE, via);
    0
}

#[fentry(function = "tcp_v4_do_rcv")]
pub fn skb_rcv4_fentry(context: FEntryContext) -> i32 {
    let (sk, skb) = (slot(&context, arg!(do_rcv4_sk)), slot(&context, arg!(do_rcv4_skb)));
    received(sk, skb, Program::SkbRcv4Fentry)
}

#[fentry(function = "tcp_v4_do_rcv")]
pub fn skb_rcv4_fentry_second(context: FEntryContext) -> i32 {
    let (sk, skb) = (slot(&context, arg!(do_rcv4_sk)), slot(&context, arg!(do_rcv4_skb)));
    received(sk, skb, Program::SkbRcv4FentrySecond)
}

#[fentry(function = "tcp_v6_do_rcv")]
pub fn skb_rcv6_fentry(context: FEntryContext) -> i32 {
    let (sk, skb) = (slot(&context, arg!(do_rcv6_sk)), slot(&context, arg!(do_rcv6_skb)));
    received(sk, skb, Program::SkbRcv6Fentry)
}

#[fentry(function = "tcp_v6_do_rcv")]
pub fn skb_rcv6_fentry_second(context: FEntryContext) -> i32 {
    let (sk, skb) = (slot(&context, arg!(do_rcv6_sk)), slot(&context, arg!(do_rcv6_skb)));
    received(sk, skb, Program::SkbRcv6FentrySecond)
}

/// Both functions take the same.
#[inline(always)]
fn received_by_kprobe(context: &ProbeContext, via: Program) {
    let registers = Registers::of(context);
    received(registers.arg(arg!(do_rcv4_sk)), registers.arg(arg!(do_rcv4_skb)), via);
}

at_each!(kprobe(ProbeContext) received_by_kprobe: skb_rcv4_kprobe = SkbRcv4Kprobe, skb_rcv6_kprobe = SkbRcv6Kprobe);
