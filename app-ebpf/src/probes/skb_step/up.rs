//! From the device to read(2).

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
    },
};
use socklife_abi::{kernel::NO_ARG, program::Program, step::place};

use super::{entered, probed, traced};
use crate::{
    args::{Registers, arg, slot},
    follow::{queued, queueing, step},
};

#[btf_tracepoint(function = "netif_rx")]
pub fn skb_netif_rx_tp_btf(context: BtfTracePointContext) -> i32 {
    traced(&context, place::NETIF_RX, Program::SkbNetifRxTpBtf)
}

#[raw_tracepoint(tracepoint = "netif_rx")]
pub fn skb_netif_rx_raw_tp(context: RawTracePointContext) -> i32 {
    traced(&context, place::NETIF_RX, Program::SkbNetifRxRawTp)
}

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn skb_received_tp_btf(context: BtfTracePointContext) -> i32 {
    traced(&context, place::RECEIVED, Program::SkbReceivedTpBtf)
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn skb_received_raw_tp(context: RawTracePointContext) -> i32 {
    traced(&context, place::RECEIVED, Program::SkbReceivedRawTp)
}

#[fentry(function = "ip_rcv_core")]
pub fn skb_ip_rcv_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip_rcv_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvFentry4,
    )
}

#[kprobe]
pub fn skb_ip_rcv_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip_rcv_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvKprobe4,
    )
}

#[fentry(function = "ip6_rcv_core")]
pub fn skb_ip_rcv_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip6_rcv_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvFentry6,
    )
}

#[kprobe]
pub fn skb_ip_rcv_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip6_rcv_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvKprobe6,
    )
}

#[fentry(function = "ip_rcv")]
pub fn skb_ip_rcv_one_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip_rcv_one_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvOneFentry4,
    )
}

#[kprobe]
pub fn skb_ip_rcv_one_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip_rcv_one_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvOneKprobe4,
    )
}

#[fentry(function = "ipv6_rcv")]
pub fn skb_ip_rcv_one_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip6_rcv_one_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvOneFentry6,
    )
}

#[kprobe]
pub fn skb_ip_rcv_one_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip6_rcv_one_skb),
        NO_ARG,
        place::IP_RCV,
        Program::SkbIpRcvOneKprobe6,
    )
}

#[fentry(function = "tcp_v4_rcv")]
pub fn skb_tcp_rcv_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(tcp4_rcv_skb),
        NO_ARG,
        place::TCP_RCV,
        Program::SkbTcpRcvFentry4,
    )
}

#[kprobe]
pub fn skb_tcp_rcv_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(tcp4_rcv_skb),
        NO_ARG,
        place::TCP_RCV,
        Program::SkbTcpRcvKprobe4,
    )
}

#[fentry(function = "tcp_v6_rcv")]
pub fn skb_tcp_rcv_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(tcp6_rcv_skb),
        NO_ARG,
        place::TCP_RCV,
        Program::SkbTcpRcvFentry6,
    )
}

#[kprobe]
pub fn skb_tcp_rcv_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(tcp6_rcv_skb),
        NO_ARG,
        place::TCP_RCV,
        Program::SkbTcpRcvKprobe6,
    )
}

#[fentry(function = "tcp_add_backlog")]
pub fn skb_backlog_fentry(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(backlog_skb),
        arg!(backlog_sk),
        place::BACKLOG,
        Program::SkbBacklogFentry,
    )
}

#[kprobe]
pub fn skb_backlog_kprobe(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(backlog_skb),
        arg!(backlog_sk),
        place::BACKLOG,
        Program::SkbBacklogKprobe,
    )
}

// At the return it is known whether the one in front of it in the queue took it in.

#[fexit(function = "tcp_queue_rcv")]
pub fn skb_queued_fexit(context: FExitContext) -> i32 {
    let (skb, sk) = (slot(&context, arg!(queue_rcv_skb)), slot(&context, arg!(queue_rcv_sk)));
    let merged = slot(&context, arg!(queue_rcv_ret)) as u32;
    step(skb, sk, place::QUEUED, Program::SkbQueuedFexit, u64::from(merged));
    0
}

#[kprobe]
pub fn skb_queued_kprobe(context: ProbeContext) -> u32 {
    let regs = Registers::of(&context);
    queueing(regs.arg(arg!(queue_rcv_sk)), regs.arg(arg!(queue_rcv_skb)));
    0
}

#[kretprobe]
pub fn skb_queued_kretprobe(context: RetProbeContext) -> u32 {
    let merged = Registers::of(&context).returned() as u32;
    queued(u64::from(merged), Program::SkbQueuedKretprobe);
    0
}

/// `skb_copy_datagram_iovec`: how many bytes are copied to the reader.
#[inline(always)]
fn read(context: &impl EbpfContext, via: Program) -> i32 {
    let bytes = slot(context, 1) as u32;
    step(slot(context, 0), 0, place::READ, via, u64::from(bytes));
    0
}

#[btf_tracepoint(function = "skb_copy_datagram_iovec")]
pub fn skb_read_tp_btf(context: BtfTracePointContext) -> i32 {
    read(&context, Program::SkbReadTpBtf)
}

#[raw_tracepoint(tracepoint = "skb_copy_datagram_iovec")]
pub fn skb_read_raw_tp(context: RawTracePointContext) -> i32 {
    read(&context, Program::SkbReadRawTp)
}
