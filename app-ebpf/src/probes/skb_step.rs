//! The way of a segment through the layers: `skb_step`. A program for each place; what they do is in [`crate::follow`].

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
    },
};
use socklife_abi::{kernel::NO_ARG, program::Program, step::place};

use crate::{
    args::{Registers, arg, slot},
    follow::{queued, queueing, step, written},
};

// Down.

#[fentry(function = "tcp_sendmsg")]
pub fn skb_written_fentry(context: FEntryContext) -> i32 {
    let (sk, message) = (slot(&context, arg!(sendmsg_sk)), slot(&context, arg!(sendmsg_msg)));
    let size = slot(&context, arg!(sendmsg_size));
    written(sk, message, size, Program::SkbWrittenFentry);
    0
}

#[kprobe]
pub fn skb_written_kprobe(context: ProbeContext) -> u32 {
    let regs = Registers::of(&context);
    let (sk, message) = (regs.arg(arg!(sendmsg_sk)), regs.arg(arg!(sendmsg_msg)));
    written(sk, message, regs.arg(arg!(sendmsg_size)), Program::SkbWrittenKprobe);
    0
}

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

#[fentry(function = "__tcp_transmit_skb")]
pub fn skb_transmit_fentry(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(transmit_skb),
        arg!(transmit_sk),
        place::TRANSMIT,
        Program::SkbTransmitFentry,
    )
}

#[kprobe]
pub fn skb_transmit_kprobe(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(transmit_skb),
        arg!(transmit_sk),
        place::TRANSMIT,
        Program::SkbTransmitKprobe,
    )
}

#[fentry(function = "ip_queue_xmit")]
pub fn skb_to_ip_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip_queue_skb),
        arg!(ip_queue_sk),
        place::TO_IP,
        Program::SkbToIpFentry4,
    )
}

#[kprobe]
pub fn skb_to_ip_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip_queue_skb),
        arg!(ip_queue_sk),
        place::TO_IP,
        Program::SkbToIpKprobe4,
    )
}

#[fentry(function = "inet6_csk_xmit")]
pub fn skb_to_ip_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip6_queue_skb),
        arg!(ip6_queue_sk),
        place::TO_IP,
        Program::SkbToIpFentry6,
    )
}

#[kprobe]
pub fn skb_to_ip_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip6_queue_skb),
        arg!(ip6_queue_sk),
        place::TO_IP,
        Program::SkbToIpKprobe6,
    )
}

#[fentry(function = "ip_finish_output2")]
pub fn skb_from_ip_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip_finish_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbFromIpFentry4,
    )
}

#[kprobe]
pub fn skb_from_ip_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip_finish_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbFromIpKprobe4,
    )
}

#[fentry(function = "ip6_finish_output2")]
pub fn skb_from_ip_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip6_finish_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbFromIpFentry6,
    )
}

#[kprobe]
pub fn skb_from_ip_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip6_finish_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbFromIpKprobe6,
    )
}

#[fentry(function = "ip_output")]
pub fn skb_output_fentry4(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip_output_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbOutputFentry4,
    )
}

#[kprobe]
pub fn skb_output_kprobe4(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip_output_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbOutputKprobe4,
    )
}

#[fentry(function = "ip6_output")]
pub fn skb_output_fentry6(context: FEntryContext) -> i32 {
    entered(
        &context,
        arg!(ip6_output_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbOutputFentry6,
    )
}

#[kprobe]
pub fn skb_output_kprobe6(context: ProbeContext) -> u32 {
    probed(
        &context,
        arg!(ip6_output_skb),
        NO_ARG,
        place::FROM_IP,
        Program::SkbOutputKprobe6,
    )
}

#[btf_tracepoint(function = "net_dev_queue")]
pub fn skb_to_device_tp_btf(context: BtfTracePointContext) -> i32 {
    traced(&context, place::TO_DEVICE, Program::SkbToDeviceTpBtf)
}

#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn skb_to_device_raw_tp(context: RawTracePointContext) -> i32 {
    traced(&context, place::TO_DEVICE, Program::SkbToDeviceRawTp)
}

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn skb_xmit_tp_btf(context: BtfTracePointContext) -> i32 {
    traced(&context, place::XMIT, Program::SkbXmitTpBtf)
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn skb_xmit_raw_tp(context: RawTracePointContext) -> i32 {
    traced(&context, place::XMIT, Program::SkbXmitRawTp)
}

// Up.

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
