//! An io_uring, by the system calls themselves: as small as a test needs it.

use std::{
    io::{Error, Result},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
};

const ENTRIES: u32 = 8;
const OP_ACCEPT: u8 = 13;
/// `IORING_ACCEPT_MULTISHOT`
const MULTISHOT: u16 = 1;
const ENTER_GETEVENTS: u32 = 1;
const REGISTER_FILES: u32 = 2;
const OFF_SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`.
#[derive(Default)]
#[repr(C)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, mask, entries, flags, dropped, array, …
    sq: [u32; 10],
    /// head, tail, mask, entries, overflow, cqes, …
    cq: [u32; 10],
}

/// `struct io_uring_sqe`, as accept(2) uses it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    addr2: u64,
    addr: u64,
    len: u32,
    accept_flags: u32,
    user_data: u64,
    buf: u16,
    personality: u16,
    file_index: u32,
    pad: [u64; 2],
}

/// `struct io_uring_cqe`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

/// How an accept is asked for.
#[derive(Clone, Copy)]
pub enum Accept {
    /// Once.
    Once,
    /// Until it is taken back (5.19).
    Multishot,
    /// Once, into a slot of the ring instead of a descriptor (5.15).
    Direct(u32),
}

/// The ring.
pub struct Uring {
    fd: OwnedFd,
    params: Params,
    ring: *mut u8,
    ring_len: usize,
    sqes: *mut Sqe,
}

impl Drop for Uring {
    fn drop(&mut self) {
        // What it was asked for is taken back when neither its descriptor nor its pages are there.
        // SAFETY: mapped by `new`, as long as that.
        unsafe {
            libc::munmap(self.ring.cast(), self.ring_len);
            libc::munmap(self.sqes.cast(), self.params.sq_entries as usize * size_of::<Sqe>());
        }
    }
}

// SAFETY: who has it has its pages, on whatever thread.
unsafe impl Send for Uring {}

impl Uring {
    /// None where the kernel has no io_uring, or lets nobody have one.
    pub fn new() -> Option<Self> {
        let mut params = Params::default();
        // SAFETY: a place for parameters of the size that the kernel knows; a new descriptor is owned, and its pages are
        // mapped as far as the kernel says that they go.
        unsafe {
            let fd = libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params);
            if fd < 0 {
                return None;
            }
            let fd = OwnedFd::from_raw_fd(i32::try_from(fd).unwrap());
            let map = |len: u32, offset: i64| {
                let (access, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
                let place = libc::mmap(ptr::null_mut(), len as usize, access, how, fd.as_raw_fd(), offset);
                assert_ne!(place, libc::MAP_FAILED, "{}", Error::last_os_error());
                place.cast::<u8>()
            };
            // Both rings in one (5.4).
            let cqes = params.cq[5] + params.cq_entries * 16;
            let ring_len = cqes.max(params.sq[6] + params.sq_entries * 4);
            let ring = map(ring_len, 0);
            let sqes = map(params.sq_entries * 64, OFF_SQES).cast();
            Some(Self {
                fd,
                params,
                ring,
                ring_len: ring_len as usize,
                sqes,
            })
        }
    }

    /// Makes slots for direct descriptors.
    pub fn slots(&self, count: usize) {
        let files = vec![-1_i32; count];
        // SAFETY: as many descriptors as are named, none of them one.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd.as_raw_fd(),
                REGISTER_FILES,
                files.as_ptr(),
                count,
            )
        };
        assert_eq!(done, 0, "{}", Error::last_os_error());
    }

    /// Asks for an accept.
    pub fn accept(&self, listener: i32, how: Accept) {
        let sqe = Sqe {
            opcode: OP_ACCEPT,
            flags: 0,
            ioprio: if matches!(how, Accept::Multishot) { MULTISHOT } else { 0 },
            fd: listener,
            addr2: 0,
            addr: 0,
            len: 0,
            accept_flags: 0,
            user_data: 7,
            buf: 0,
            personality: 0,
            file_index: if let Accept::Direct(slot) = how { slot + 1 } else { 0 },
            pad: [0; 2],
        };
        let tail = self.word(self.params.sq[1]);
        let at = tail.load(Acquire);
        let index = at & (self.params.sq_entries - 1);
        // SAFETY: within the pages that are mapped; the kernel looks when the tail has moved.
        unsafe {
            self.sqes.add(index as usize).write(sqe);
            self.ring
                .add(self.params.sq[6] as usize)
                .cast::<u32>()
                .add(index as usize)
                .write(index);
        }
        tail.store(at + 1, Release);
        self.enter(1, 0).unwrap();
    }

    /// Waits for the next result.
    pub fn result(&self) -> Result<i32> {
        let head = self.word(self.params.cq[0]);
        let at = head.load(Acquire);
        while self.word(self.params.cq[1]).load(Acquire) == at {
            self.enter(0, 1).unwrap();
        }
        let index = at & (self.params.cq_entries - 1);
        // SAFETY: within the pages that are mapped; the kernel has written it.
        let cqe = unsafe {
            let cqes = self.ring.add(self.params.cq[5] as usize).cast::<Cqe>();
            cqes.add(index as usize).read()
        };
        head.store(at + 1, Release);
        if cqe.res < 0 {
            return Err(Error::from_raw_os_error(-cqe.res));
        }
        Ok(cqe.res)
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: a word of the ring, which the kernel shares.
        unsafe { &*self.ring.add(offset as usize).cast() }
    }

    fn enter(&self, submit: u32, wait: u32) -> Result<()> {
        let flags = if wait > 0 { ENTER_GETEVENTS } else { 0 };
        let fd = self.fd.as_raw_fd();
        // SAFETY: no signal mask.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, wait, flags, ptr::null::<u8>(), 8) };
        if done < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }
}
