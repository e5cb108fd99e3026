//! The arguments of the hooked function, at positions that the loader found in BTF.

use core::arch::asm;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_func_ip, programs::TracePointContext};
use socklife_abi::kernel::Off;

use crate::{
    maps::global,
    mem::{Mem as _, Obj, Probe},
};

/// Reads one position of the table of arguments.
macro_rules! arg {
    ($field:ident) => {
        $crate::maps::global!(ARGS.$field)
    };
}
pub(crate) use arg;

macro_rules! load {
    ($context:expr, $offset:literal) => {{
        let value: u64;
        // SAFETY: the verifier knows how many slots the hooked function has. In assembly, because the compiler would
        // merge the branches into one load at a computed offset, which the verifier refuses on a context.
        unsafe {
            asm!(concat!("{v} = *(u64 *)({c} + ", $offset, ")"), v = out(reg) value, c = in(reg) $context,
                options(nostack, readonly, preserves_flags));
        }
        value
    }};
}

/// A slot of a BTF-typed context (`tp_btf`, fentry, fexit): arguments, then the return value. The position is a
/// constant for the verifier, which keeps one branch.
#[inline(always)]
pub fn slot(context: &impl EbpfContext, position: u8) -> u64 {
    let context = context.as_ptr();
    match position {
        0 => load!(context, "0"),
        1 => load!(context, "8"),
        2 => load!(context, "16"),
        3 => load!(context, "24"),
        4 => load!(context, "32"),
        5 => load!(context, "40"),
        6 => load!(context, "48"),
        _ => 0,
    }
}

/// The slot of a tracepoint's argument, whose position counts from `__data` on.
#[inline(always)]
pub fn tracepoint_slot(context: &impl EbpfContext, position: u8) -> u64 {
    slot(context, position.wrapping_sub(1))
}

/// The address that the hooked function returns to, in a fexit program whose return value is in this slot.
///
/// The trampoline keeps on its stack, from the context up: the arguments, the return value, the frame pointer, the address
/// in the hooked function, and above that what stood on the stack when the function was called
/// (`arch_prepare_bpf_trampoline` of x86, from 5.10 on). Where the function jumps to the trampoline (7.3) the address in it is
/// not there. What is no address of code is 0.
#[inline(always)]
pub fn caller(context: &impl EbpfContext, returned: u8) -> u64 {
    // Modules too are in the last two gigabytes.
    const CODE: u64 = 0xffff_ffff_8000_0000;
    // How far into a function the call of a trampoline stands, at most.
    const ENTRY: u64 = 64;
    let place = context.as_ptr().cast::<u64>().wrapping_add(returned as usize + 2);
    // SAFETY: read by the helper, which checks the address.
    let mut address: u64 = unsafe { Probe::read(place) };
    let called = global!(CODE.func_ip) == 0
        // SAFETY: a fexit program's context.
        || address.wrapping_sub(unsafe { bpf_get_func_ip(context.as_ptr()) }) <= ENTRY;
    if called {
        // SAFETY: as above.
        address = unsafe { Probe::read(place.wrapping_add(1)) };
    }
    if address >= CODE { address } else { 0 }
}

/// A word of a tracepoint's record: behind 16 bytes `syscalls:sys_enter_*` has the arguments and `sys_exit_*` the result.
#[inline(always)]
pub fn record(context: &TracePointContext, offset: usize) -> u64 {
    // SAFETY: the verifier checks it against the record.
    unsafe { context.as_ptr().cast::<u8>().add(offset).cast::<u64>().read_volatile() }
}

/// The saved registers of a kprobe, or of a system call.
#[derive(Clone, Copy)]
pub struct Registers(Obj<Probe>);

impl Registers {
    /// The context of a kprobe or kretprobe.
    #[inline(always)]
    pub fn of(context: &impl EbpfContext) -> Self {
        Self(Obj::new(context.as_ptr().cast()))
    }

    #[inline(always)]
    pub fn at(regs: *const u8) -> Self {
        Self(Obj::new(regs))
    }

    /// An argument of the function that was entered.
    #[inline(always)]
    pub fn arg(self, position: u8) -> u64 {
        let at: Off<u64> = match position {
            0 => global!(REGS.args[0]),
            1 => global!(REGS.args[1]),
            2 => global!(REGS.args[2]),
            3 => global!(REGS.args[3]),
            4 => global!(REGS.args[4]),
            5 => global!(REGS.args[5]),
            _ => return 0,
        };
        self.0.get(at)
    }

    /// What the function returned.
    #[inline(always)]
    pub fn returned(self) -> u64 {
        self.0.get(global!(REGS.ret))
    }

    /// Where the stack ends. At a function's entry its return address stands there, and after its return above it.
    #[inline(always)]
    pub fn stack(self) -> u64 {
        self.0.get(global!(REGS.stack))
    }

    /// The number of the system call.
    #[inline(always)]
    pub fn syscall(self) -> u64 {
        self.0.get(global!(REGS.syscall))
    }

    /// The first argument of the system call.
    #[inline(always)]
    pub fn syscall_arg0(self) -> u64 {
        self.0.get(global!(REGS.syscall_arg0))
    }
}
