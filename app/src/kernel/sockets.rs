//! What exists now: iterators, run once in each network namespace. Nothing is attached.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use bytemuck::pod_read_unaligned;
use socklife_abi::{config::Filter, program::Program, queued::Record};

use super::{
    Kernel, cookies, iterator,
    loader::{self, Sizes},
    namespaces::{self, Namespace},
};
use crate::clock;

/// What was found.
#[derive(Debug)]
pub struct Found<T> {
    /// Each socket that the filter lets through.
    pub all: Vec<T>,
    /// When the walk began, on the boot clock.
    pub time_ns: u64,
    /// Namespaces that could not be entered, by inode.
    pub closed: Vec<u32>,
}

impl<T> Found<T> {
    /// The same, with something made of each.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Found<U> {
        Found {
            all: self.all.into_iter().map(make).collect(),
            time_ns: self.time_ns,
            closed: self.closed,
        }
    }
}

/// Lists sockets, as often as one likes.
pub struct Sockets {
    ebpf: Ebpf,
    netns: u32,
    namespaces: Vec<Namespace>,
}

impl Sockets {
    /// Loads the iterators that are wanted, and looks for namespaces.
    ///
    /// # Errors
    ///
    /// When the kernel does not let us, or the filter wants a namespace that cannot be found.
    pub fn open(kernel: &Kernel, filter: &Filter, programs: &[Program]) -> Result<Self> {
        let mut ebpf = loader::load(filter, Sizes::LEAST, 0, kernel)?;
        for program in programs {
            load(&mut ebpf, *program, kernel)?;
        }
        let mut sockets = Self {
            ebpf,
            netns: filter.netns,
            namespaces: Vec::new(),
        };
        sockets.find_namespaces();
        ensure!(
            filter.netns == 0 || !sockets.namespaces.is_empty(),
            "network namespace {} cannot be found: no process lives in it, and it has no name in /run/netns",
            filter.netns
        );
        Ok(sockets)
    }

    /// Looks for namespaces again, and sees to it that sockets have their cookies.
    pub fn find_namespaces(&mut self) {
        self.namespaces = namespaces::find(self.netns);
        cookies::ask(&self.namespaces);
    }

    /// Lists them as the program of this record does.
    ///
    /// # Errors
    ///
    /// When the kernel does not let us.
    pub fn list<T: Record>(&mut self) -> Result<Found<T>> {
        list(&mut self.ebpf, &self.namespaces)
    }
}

/// Loads an iterator.
pub(super) fn load(ebpf: &mut Ebpf, program: Program, kernel: &Kernel) -> Result<()> {
    iterator::program(ebpf, program)?
        .load("tcp", &kernel.targets)
        .map_err(loader::reason)
        .context("this kernel refuses the iterator over TCP sockets (socklife runs on 5.10 and later)")
}

/// Walks these namespaces with the loaded program of this record.
pub(super) fn list<T: Record>(ebpf: &mut Ebpf, namespaces: &[Namespace]) -> Result<Found<T>> {
    let program = iterator::program(ebpf, T::PROGRAM)?;
    let time_ns = clock::boot_ns();
    let walk = iterator::walk(program, namespaces)?;
    Ok(Found {
        all: each_once(walk.written.chunks_exact(size_of::<T>()).map(pod_read_unaligned)),
        time_ns,
        closed: walk.closed,
    })
}

/// A table that grows or shrinks under the walk can bring a socket up twice: what was seen last holds.
fn each_once<T: Record>(found: impl Iterator<Item = T>) -> Vec<T> {
    let mut places = HashMap::new();
    let mut all: Vec<T> = Vec::new();
    for record in found {
        // An address that was given back may hold another connection by now.
        let key = record.socket().identity();
        match places.get(&key).and_then(|place: &usize| all.get_mut(*place)) {
            Some(seen) => *seen = record,
            None => {
                places.insert(key, all.len());
                all.push(record);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use socklife_abi::{event::state, socket::Socket};

    use super::each_once;

    #[test]
    fn a_socket_that_comes_up_twice_is_shown_once() {
        let socket = |key, sport, state: u32| Socket {
            key,
            sport,
            state: u8::try_from(state).expect("small"),
            ..Socket::zeroed()
        };
        let first = socket(1, 80, state::ESTABLISHED);
        let (other, later, reused) = (
            socket(2, 80, state::ESTABLISHED),
            socket(1, 80, state::FIN_WAIT1),
            socket(1, 81, state::ESTABLISHED),
        );
        let found = [first, other, later, reused].into_iter();
        assert_eq!(each_once(found), [later, other, reused]);
    }
}
