//! What is older than the trace: sockets, and the processes that hold them. Looked for once everything is attached, so that
//! what comes meanwhile is seen by an event, or here, or by both.

use std::collections::HashSet;

use anyhow::Result;
use bytemuck::Zeroable as _;
use socklife_abi::{
    config::Filter,
    event::{Envelope, state},
    queued::Record as _,
    socket::{self, Socket},
};

use crate::{
    clock::boot_ns,
    holders::{self, Found, Holder},
    kernel::{Found as Listed, Kernel, Sockets, Tracer, namespaces},
    model::{Holders, holders::Before},
    output::say,
    pids,
};

/// A process that forks while we look is found the next time, and its child then or by an event.
const LOOKS: u32 = 3;

/// Tells the model of them, and the kernel side of the processes.
///
/// # Errors
///
/// When the kernel lets us list no sockets.
pub fn tell(model: &mut Holders, kernel: &Kernel, tracer: &mut Tracer, filter: &Filter) -> Result<()> {
    if !pids::proc_is_initial() {
        say!("socklife: /proc is of another PID namespace: who holds sockets already is not known");
        return Ok(());
    }
    if filter.netns != 0 && namespaces::find(filter.netns).is_empty() {
        say!(
            "socklife: network namespace {} may not be looked at (CAP_SYS_PTRACE): what is there already is not known",
            filter.netns
        );
        return Ok(());
    }
    let Listed { all, closed, .. } = if filter.pid == 0 {
        tracer.older(kernel)?
    } else {
        // Whose a socket is the iterator cannot tell.
        Sockets::open(kernel, &Filter { pid: 0, ..*filter }, &[Socket::PROGRAM])?.list::<Socket>()?
    };
    if !closed.is_empty() {
        say!(
            "socklife: {} network namespaces may not be entered (CAP_SYS_ADMIN): the sockets there are not known",
            closed.len()
        );
    }
    let inodes: HashSet<u64> = all
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0)
        .collect();
    let mut known = HashSet::new();
    let mut found = Found::default();
    for _ in 0..LOOKS {
        found = holders::find(&inodes);
        let new: HashSet<u32> = processes(&found, filter.pid)
            .filter(|pid| !known.contains(pid))
            .collect();
        if new.is_empty() {
            break;
        }
        tracer.counters.note_processes(&new)?;
        known.extend(new);
    }
    let now = boot_ns();
    for socket in &all {
        let held = found.by_inode.get(&socket.inode).map_or(&[][..], Vec::as_slice);
        if is_wanted(held, filter.pid) {
            let held: Vec<_> = held.iter().map(before).collect();
            let listens = u32::from(socket.state) == state::LISTEN;
            model.before(envelope(socket, now), socket.inode, listens, &held);
        }
    }
    if found.cut {
        say!(
            "socklife: too many descriptors on this machine to look at each: some that hold older sockets are not known"
        );
    }
    if found.hidden > 0 {
        say!(
            "socklife: {} processes do not show their descriptors (CAP_SYS_PTRACE): what they hold already is not known",
            found.hidden
        );
    }
    Ok(())
}

/// Whether one of them is the process that was asked for, if one was.
fn is_wanted(held: &[Holder], pid: u32) -> bool {
    pid == 0 || held.iter().any(|holder| holder.process.pid == pid)
}

fn processes(found: &Found, pid: u32) -> impl Iterator<Item = u32> {
    let wanted = found.by_inode.values().filter(move |held| is_wanted(held, pid));
    wanted.flatten().map(|holder| holder.process.pid)
}

fn before(holder: &Holder) -> Before {
    Before {
        pid: holder.process.pid,
        comm: holder.process.comm,
        fd: i32::try_from(holder.fd).unwrap_or(socklife_abi::event::UNKNOWN_FD),
    }
}

fn envelope(socket: &Socket, time_ns: u64) -> Envelope {
    Envelope {
        time_ns,
        cookie: socket.cookie,
        saddr: socket.saddr,
        daddr: socket.daddr,
        sport: socket.sport,
        dport: socket.dport,
        family: socket.family,
        netns: socket.netns,
        flags: if socket.flags & socket::MAPPED != 0 {
            socklife_abi::event::MAPPED
        } else {
            0
        },
        ..Envelope::zeroed()
    }
}
