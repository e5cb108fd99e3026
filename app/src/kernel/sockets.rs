//! What exists now: one iterator, run once in each network namespace. Nothing is attached.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use aya::Btf;
use bytemuck::pod_read_unaligned;
use socklife_abi::{config::Filter, program::Program, socket::Socket};

use super::{
    cookies, iterator,
    layout::Layout,
    loader::{self, Sizes},
    namespaces,
};
use crate::clock;

/// What was found.
#[derive(Debug)]
pub struct Sockets {
    /// Each socket that the filter lets through.
    pub all: Vec<Socket>,
    /// When the walk began, on the boot clock.
    pub time_ns: u64,
    /// Namespaces that could not be entered, by inode.
    pub closed: Vec<u32>,
}

/// Lists sockets.
///
/// # Errors
///
/// When the kernel does not let us, or the filter wants a namespace that cannot be found.
pub fn list(filter: &Filter) -> Result<Sockets> {
    let layout = Layout::of_running_kernel()?;
    let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    let mut ebpf = loader::load(filter, Sizes::LEAST, 0, &layout, &btf)?;
    let program = iterator::program(&mut ebpf, Program::SocketsIter)?;
    program
        .load("tcp", &btf)
        .map_err(loader::reason)
        .context("this kernel refuses the iterator over TCP sockets (socklife runs on 5.10 and later)")?;
    cookies::ask(filter.netns);
    let namespaces = namespaces::find(filter.netns);
    ensure!(
        filter.netns == 0 || !namespaces.is_empty(),
        "network namespace {} cannot be found: no process lives in it, and it has no name in /run/netns",
        filter.netns
    );
    let time_ns = clock::boot_ns();
    let walk = iterator::walk(program, namespaces)?;
    Ok(Sockets {
        all: each_once(walk.written.chunks_exact(size_of::<Socket>()).map(pod_read_unaligned)),
        time_ns,
        closed: walk.closed,
    })
}

/// A table that grows or shrinks under the walk can bring a socket up twice: what was seen last holds.
fn each_once(found: impl Iterator<Item = Socket>) -> Vec<Socket> {
    let mut places = HashMap::new();
    let mut all: Vec<Socket> = Vec::new();
    for socket in found {
        // An address that was given back may hold another connection by now.
        let key = (socket.key, socket.saddr, socket.sport, socket.daddr, socket.dport);
        match places.get(&key).and_then(|place: &usize| all.get_mut(*place)) {
            Some(seen) => *seen = socket,
            None => {
                places.insert(key, all.len());
                all.push(socket);
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
