//! How a program may read kernel memory.

use core::{ffi::c_void, marker::PhantomData, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use socklife_abi::kernel::{ABSENT, Bits, Off, Ptr};

use crate::{maps::global, sock::Sock};

/// Reads one field of the table of offsets.
macro_rules! off {
    ($field:ident) => {
        $crate::maps::global!(OFFSETS.$field)
    };
}
pub(crate) use off;

/// The two ways of reading.
pub trait Mem: Copy {
    /// Reads kernel memory; zeroes where that fails.
    unsafe fn read<T: Copy>(p: *const T) -> T;

    /// The full TCP sock behind a `struct sock`, which may be null, another protocol's, or an MPTCP msk.
    fn tcp(sk: *const u8) -> Option<Sock<Self>>;

    /// The cookie of a sock or `request_sock`; makes one where this kernel and program type let us.
    fn cookie_of(sock: Obj<Self>) -> u64;

    /// The socket cookie.
    #[inline(always)]
    fn cookie(sock: Sock<Self>) -> u64 {
        Self::cookie_of(sock.0)
    }
}

/// Loads that the verifier checks against BTF: `tp_btf`, fentry, fexit.
#[derive(Clone, Copy)]
pub struct Direct;

/// `bpf_probe_read_kernel`: kprobes, raw tracepoints, tracepoints, `sock_ops`, cgroup hooks.
#[derive(Clone, Copy)]
pub struct Probe;

impl Mem for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy>(p: *const T) -> T {
        // SAFETY: the verifier accepts only a typed pointer and an offset inside its type.
        unsafe { p.read_volatile() }
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> Option<Sock<Self>> {
        // SAFETY: the helper takes any sock pointer; null for what is not a full TCP sock.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast::<c_void>()) };
        if tcp.is_null() {
            return None;
        }
        Some(Sock(Obj::new(tcp.cast())))
    }

    #[inline(always)]
    fn cookie_of(sock: Obj<Self>) -> u64 {
        if global!(CONFIG.cookie_helper) != 0 {
            // SAFETY: a typed sock.
            unsafe { bpf_get_socket_cookie(sock.ptr().cast_mut().cast()) }
        } else {
            sock.get(off!(cookie))
        }
    }
}

impl Mem for Probe {
    #[inline(always)]
    unsafe fn read<T: Copy>(p: *const T) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper checks the address, and fills the place with zeroes where it fails
        // (`bpf_probe_read_kernel_common`); all zeroes is a value of every T we read. To look at its result would double
        // the paths that the verifier walks, at each read.
        unsafe {
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, p.cast());
            value.assume_init()
        }
    }

    #[inline(always)]
    fn tcp(sk: *const u8) -> Option<Sock<Self>> {
        if sk.is_null() {
            return None;
        }
        Sock(Obj::new(sk)).if_tcp()
    }

    #[inline(always)]
    fn cookie_of(sock: Obj<Self>) -> u64 {
        sock.get(off!(cookie))
    }
}

/// An object in kernel memory.
#[derive(Clone, Copy)]
pub struct Obj<M>(*const u8, PhantomData<M>);

impl<M: Mem> Obj<M> {
    /// No object: every field reads as zeroes, by probe.
    pub const NULL: Self = Self(core::ptr::null(), PhantomData);

    #[inline(always)]
    pub fn new(p: *const u8) -> Self {
        Self(p, PhantomData)
    }

    #[inline(always)]
    pub fn ptr(self) -> *const u8 {
        self.0
    }

    /// A field; zeroes where this kernel has none.
    #[inline(always)]
    pub fn get<T: Copy>(self, field: Off<T>) -> T {
        self.get_at(field, 0)
    }

    /// What stands `bytes` behind the start of a field.
    #[inline(always)]
    pub fn get_at<T: Copy>(self, field: Off<T>, bytes: usize) -> T {
        if field.bytes() == ABSENT {
            // SAFETY: all zeroes is a value of every T we read.
            return unsafe { core::mem::zeroed() };
        }
        // SAFETY: `read` answers for the address.
        unsafe { M::read(self.0.add(field.bytes() as usize + bytes).cast()) }
    }

    /// A bit field; zero where this kernel has none.
    #[inline(always)]
    pub fn bits(self, field: Off<Bits>) -> u8 {
        if field.bytes() == ABSENT {
            return 0;
        }
        // SAFETY: `read` answers for the address.
        field.of(unsafe { M::read(self.0.add(field.byte() as usize)) })
    }

    /// The object that has this one at that field.
    #[inline(always)]
    pub fn back(self, field: Off<u64>) -> Self {
        Self::new(self.0.wrapping_sub(field.bytes() as usize))
    }

    /// The object that a field points to.
    #[inline(always)]
    pub fn follow(self, field: Off<Ptr>) -> Self {
        if field.bytes() == ABSENT {
            return Self::new(core::ptr::null());
        }
        // SAFETY: as above; the pointer keeps its type for the verifier.
        Self::new(unsafe { M::read(self.0.add(field.bytes() as usize).cast::<*const u8>()) })
    }
}
