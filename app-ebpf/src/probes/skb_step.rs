//! The way of a segment through the layers: `skb_step`. A program for each place; what they do is in [`crate::follow`].

mod down;
mod up;

use aya_ebpf::EbpfContext;
use socklife_abi::{kernel::NO_ARG, program::Program};

use crate::{
    args::{Registers, slot},
    follow::step,
};

/// A function that was entered: its sk_buff, and its socket where it has one.
#[inline(always)]
fn entered(context: &impl EbpfContext, skb: u8, sk: u8, place: u8, via: Program) -> i32 {
    let sk = if sk == NO_ARG { 0 } else { slot(context, sk) };
    step(slot(context, skb), sk, place, via, 0);
    0
}

/// The same, by breakpoint.
#[inline(always)]
fn probed(context: &impl EbpfContext, skb: u8, sk: u8, place: u8, via: Program) -> u32 {
    let regs = Registers::of(context);
    let sk = if sk == NO_ARG { 0 } else { regs.arg(sk) };
    step(regs.arg(skb), sk, place, via, 0);
    0
}

/// A tracepoint whose first argument is the sk_buff.
#[inline(always)]
fn traced(context: &impl EbpfContext, place: u8, via: Program) -> i32 {
    step(slot(context, 0), 0, place, via, 0);
    0
}
