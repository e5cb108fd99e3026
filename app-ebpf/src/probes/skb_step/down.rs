//! From write(2) to the device.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use socklife_abi::{kernel::NO_ARG, program::Program, step::place};

use super::{entered, probed, traced};
use crate::{
    args::{Registers, arg, slot},
    follow::written,
};

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
