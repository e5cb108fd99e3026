//! bind(2): `bound`.

use aya_ebpf::{
    EbpfContext as _,
    macros::{cgroup_sock, fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext, SockContext},
};
use socklife_abi::{event::Bound, program::Program};

use crate::{
    args::{Registers, arg, slot},
    calls::{enter, leave},
    emit::Subject,
    mem::{Direct, Mem, Probe},
    task::Task,
    twice::first,
};

#[inline(always)]
fn bound<M: Mem>(sk: u64, via: Program, task: Task) {
    let Some(sock) = M::tcp(sk as *const u8) else {
        return;
    };
    if let Some(subject) = Subject::new(sock, via, task) {
        subject.emit(Bound {});
    }
}

#[inline(always)]
fn returned(sk: u64, returned: u64, place: Program, via: Program) -> i32 {
    if returned as i32 == 0 && first(sk, place, via) {
        bound::<Direct>(sk, via, Task::current());
    }
    0
}

#[inline(always)]
fn returned4(context: &FExitContext, via: Program) -> i32 {
    returned(
        slot(context, arg!(bind4_sk)),
        slot(context, arg!(bind4_ret)),
        Program::BindFexit4,
        via,
    )
}

#[inline(always)]
fn returned6(context: &FExitContext, via: Program) -> i32 {
    returned(
        slot(context, arg!(bind6_sk)),
        slot(context, arg!(bind6_ret)),
        Program::BindFexit6,
        via,
    )
}

#[fexit(function = "__inet_bind")]
pub fn bind_fexit4(context: FExitContext) -> i32 {
    returned4(&context, Program::BindFexit4)
}

#[fexit(function = "__inet_bind")]
pub fn bind_fexit4_second(context: FExitContext) -> i32 {
    returned4(&context, Program::BindFexit4Second)
}

#[fexit(function = "__inet6_bind")]
pub fn bind_fexit6(context: FExitContext) -> i32 {
    returned6(&context, Program::BindFexit6)
}

#[fexit(function = "__inet6_bind")]
pub fn bind_fexit6_second(context: FExitContext) -> i32 {
    returned6(&context, Program::BindFexit6Second)
}

/// Both functions take the same.
#[inline(always)]
fn entered_by_kprobe(context: &ProbeContext, _: Program) {
    enter(Registers::of(context).arg(arg!(bind4_sk)), 0);
}

#[inline(always)]
fn returned_by_kretprobe(context: &RetProbeContext, via: Program) {
    let Some(call) = leave() else { return };
    if Registers::of(context).returned() as i32 == 0 {
        bound::<Probe>(call.object, via, Task::current());
    }
}

at_each!(kprobe(ProbeContext) entered_by_kprobe: bind_kprobe4 = BindKprobe4, bind_kprobe6 = BindKprobe6);
at_each!(kretprobe(RetProbeContext) returned_by_kretprobe:
    bind_kretprobe4 = BindKretprobe4, bind_kretprobe6 = BindKretprobe6);

// Here the context is the `struct sock` itself, once it is read by address.

#[cgroup_sock(post_bind4)]
pub fn bind_cgroup4(context: SockContext) -> i32 {
    bound::<Probe>(context.as_ptr() as u64, Program::BindCgroup4, Task::walked());
    1
}

#[cgroup_sock(post_bind6)]
pub fn bind_cgroup6(context: SockContext) -> i32 {
    bound::<Probe>(context.as_ptr() as u64, Program::BindCgroup6, Task::walked());
    1
}
