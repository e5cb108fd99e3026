//! Keeps tracepoints open a little longer than the programs at them.
//!
//! Who closes the last perf event of a tracepoint waits for two RCU grace periods, and holds a lock that all others wait
//! for (`perf_trace_event_unreg`): half a second at the end of a trace, one tracepoint after the other. So each gets one
//! more event, without a program, in a map: what is in a map the kernel closes later, by itself, and nobody waits.

use std::{
    io::{Error, Result},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::tracefs;

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const PERF_EVENT_ARRAY: u32 = 4;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: i64 = 8;

/// More than the table has.
const MOST: u32 = 64;

/// Open tracepoints.
pub struct Kept {
    array: OwnedFd,
    events: u32,
}

/// The parts of `union bpf_attr` that the two commands read.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct perf_event_attr` in its first version (`PERF_ATTR_SIZE_VER0`).
#[derive(Default)]
#[repr(C)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    /// The lowest is `disabled`.
    bits: u64,
    rest: [u64; 2],
}

impl Kept {
    /// None yet.
    pub fn new() -> Result<Self> {
        let create = Create {
            kind: PERF_EVENT_ARRAY,
            key_size: 4,
            value_size: 4,
            entries: MOST,
        };
        Ok(Self {
            array: bpf(BPF_MAP_CREATE, &create)?,
            events: 0,
        })
    }

    /// Keeps this one open until the map is closed.
    pub fn keep(&mut self, category: &str, name: &str) -> Result<()> {
        let attr = Attr {
            kind: PERF_TYPE_TRACEPOINT,
            size: u32::try_from(size_of::<Attr>()).map_err(Error::other)?,
            config: tracefs::number(category, name)?,
            bits: 1,
            ..Attr::default()
        };
        // SAFETY: `attr` has the size that it names, and outlives the call.
        let event = unsafe {
            owned(libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                -1_i64,
                0_i64,
                -1_i64,
                PERF_FLAG_FD_CLOEXEC,
            ))?
        };
        let value = event.as_raw_fd();
        let update = Update {
            map: u32::try_from(self.array.as_raw_fd()).map_err(Error::other)?,
            padding: 0,
            key: (&raw const self.events) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: `update` names a key and a value of the map's sizes, which outlive the call.
        match unsafe { command(BPF_MAP_UPDATE_ELEM, &update) } {
            0 => self.events += 1,
            _ => return Err(Error::last_os_error()),
        }
        Ok(())
    }
}

fn bpf(number: i64, create: &Create) -> Result<OwnedFd> {
    // SAFETY: what it names it has by value.
    unsafe { owned(command(number, create)) }
}

/// # Safety
///
/// What `attr` points to outlives the call.
unsafe fn command<T>(number: i64, attr: &T) -> i64 {
    // SAFETY: `attr` has the size that is named; the rest is the caller's promise.
    unsafe { libc::syscall(libc::SYS_bpf, number, &raw const *attr, size_of::<T>()) }
}

/// # Safety
///
/// `fd` is a new descriptor, or negative after a failed system call.
unsafe fn owned(fd: i64) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(Error::other)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
