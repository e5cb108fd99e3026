//! Which process reads and writes: `touched`.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use socklife_abi::{
    event::{Touched, touch},
    program::Program,
};

use crate::{
    args::{Registers, arg, slot},
    emit::Subject,
    lives::{self, Life},
    mem::{Direct, Mem, Probe},
    task::Task,
};

/// Runs at each read and write: one that the same process did before ends after one look into a table.
#[inline(always)]
fn touched<M: Mem>(sk: u64, what: u32, via: Program) {
    let pid = Task::pid();
    let who = |life: &Life| if what == touch::READ { life.reader } else { life.writer };
    if who(&lives::of(sk, lives::cookie(sk))) == pid {
        return;
    }
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    let Some(subject) = Subject::new(sock, via, Task::current()) else {
        return;
    };
    // One that finds no room is counted where its life begins; without a note each call would tell.
    let known = subject.changes(|life| {
        if what == touch::READ {
            life.reader = pid;
        } else {
            life.writer = pid;
        }
    });
    if known {
        subject.is_held();
        subject.emit(Touched {
            what,
            fd: sock.fd(),
            inode: sock.inode(),
        });
    }
}

#[inline(always)]
fn read<M: Mem>(context: &impl EbpfContext, via: Program) -> i32 {
    touched::<M>(slot(context, 0), touch::READ, via);
    0
}

// Everything twice, see [`crate::twice`]: the second finds done what the first did.

// The tracepoint stands where data was copied to the reader, whichever system call it used.

#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn read_tp_btf(context: BtfTracePointContext) -> i32 {
    read::<Direct>(&context, Program::ReadTpBtf)
}

#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn read_tp_btf_second(context: BtfTracePointContext) -> i32 {
    read::<Direct>(&context, Program::ReadTpBtfSecond)
}

#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
pub fn read_raw_tp(context: RawTracePointContext) -> i32 {
    read::<Probe>(&context, Program::ReadRawTp)
}

#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
pub fn read_raw_tp_second(context: RawTracePointContext) -> i32 {
    read::<Probe>(&context, Program::ReadRawTpSecond)
}

#[fentry(function = "tcp_sendmsg")]
pub fn write_fentry(context: FEntryContext) -> i32 {
    touched::<Direct>(slot(&context, arg!(sendmsg_sk)), touch::WRITE, Program::WriteFentry);
    0
}

#[fentry(function = "tcp_sendmsg")]
pub fn write_fentry_second(context: FEntryContext) -> i32 {
    touched::<Direct>(
        slot(&context, arg!(sendmsg_sk)),
        touch::WRITE,
        Program::WriteFentrySecond,
    );
    0
}

#[kprobe]
pub fn write_kprobe(context: ProbeContext) -> u32 {
    touched::<Probe>(
        Registers::of(&context).arg(arg!(sendmsg_sk)),
        touch::WRITE,
        Program::WriteKprobe,
    );
    0
}

/// `sock:sock_send_length`, of every protocol.
#[inline(always)]
fn sent(context: &BtfTracePointContext, via: Program) -> i32 {
    if slot(context, 1) as i32 > 0 {
        touched::<Direct>(slot(context, 0), touch::WRITE, via);
    }
    0
}

#[btf_tracepoint(function = "sock_send_length")]
pub fn write_tp_btf(context: BtfTracePointContext) -> i32 {
    sent(&context, Program::WriteTpBtf)
}

#[btf_tracepoint(function = "sock_send_length")]
pub fn write_tp_btf_second(context: BtfTracePointContext) -> i32 {
    sent(&context, Program::WriteTpBtfSecond)
}
