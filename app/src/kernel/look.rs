//! Walking a table of the kernel side with an iterator over its elements, as often as one likes: it takes no more than
//! CAP_BPF, enters no network namespace, and keeps no kprobe waiting.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read as _, Result as IoResult},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map};
use socklife_abi::program::Program;

use super::iterator;

const BPF_LINK_CREATE: i64 = 28;
const BPF_ITER_CREATE: i64 = 33;
const BPF_TRACE_ITER: u32 = 28;
/// How much the kernel writes at a time, at most (`bpf_seq_read`).
const PAGE: usize = 32_768;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// The part that `BPF_ITER_CREATE` reads.
#[repr(C)]
struct IterAttr {
    link_fd: u32,
    flags: u32,
}

/// A program and its table.
pub struct Look(OwnedFd);

impl Look {
    /// Of a program that is loaded.
    pub fn open(ebpf: &mut Ebpf, program: Program, map: &str) -> Result<Self> {
        let Some(Map::HashMap(map)) = ebpf.map(map) else {
            bail!("the object has no table {map}");
        };
        let map = map.fd().as_fd().as_raw_fd();
        let program = iterator::program(ebpf, program)?;
        let program = program.fd().context("the iterator is not loaded")?.as_fd().as_raw_fd();
        link(program, map)
            .map(Self)
            .context("cannot attach the iterator over a table")
    }

    /// What the program writes of the elements that are there now.
    pub fn read(&self) -> Result<Vec<u8>> {
        let attr = IterAttr {
            link_fd: number(self.0.as_raw_fd())?,
            flags: 0,
        };
        // SAFETY: the attributes outlive the call.
        let mut file = unsafe { create(BPF_ITER_CREATE, &attr) }
            .map(File::from)
            .context("cannot open the iterator over a table")?;
        let mut written = Vec::new();
        let mut page = [0; PAGE];
        loop {
            match file.read(&mut page) {
                Ok(0) => return Ok(written),
                Ok(read) => written.extend_from_slice(page.get(..read).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("cannot walk a table"),
            }
        }
    }
}

fn link(program: RawFd, map: RawFd) -> IoResult<OwnedFd> {
    let map = number(map)?;
    let attr = LinkAttr {
        prog_fd: number(program)?,
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: (&raw const map) as u64,
        iter_info_len: 4,
        reserved: 0,
    };
    // SAFETY: the attributes, and the map's number behind them, outlive the call.
    unsafe { create(BPF_LINK_CREATE, &attr) }
}

fn number(fd: RawFd) -> IoResult<u32> {
    u32::try_from(fd).map_err(Error::other)
}

/// A command whose answer is a new descriptor.
unsafe fn create<T>(command: i64, attr: &T) -> IoResult<OwnedFd> {
    // SAFETY: the caller's.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(Error::other)?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
