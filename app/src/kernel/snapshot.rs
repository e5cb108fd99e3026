//! What is there when the trace begins: the iterator puts it into the kernel side's tables, one namespace after the other.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Iter, iter::IterLink},
};
use socklife_abi::program::Program;

use super::namespaces;

/// Walks every TCP socket of this namespace, or of all. A namespace that cannot be entered is left out: what is in there
/// is known from its next event on.
pub fn take(ebpf: &mut Ebpf, netns: u32) -> Result<()> {
    let symbol = Program::SnapshotIter.symbol();
    let program: &mut Iter = ebpf
        .program_mut(symbol)
        .with_context(|| format!("the object has no program {symbol}"))?
        .try_into()
        .context("the snapshot is no iterator")?;
    let mut walks = Vec::new();
    for namespace in namespaces::find(netns) {
        let link = program.attach().context("cannot attach the iterator over sockets")?;
        walks.push((
            namespace.file,
            program.take_link(link).context("cannot keep the iterator's link")?,
        ));
    }
    let walking = thread::spawn(move || {
        for (namespace, link) in walks {
            let _ = walk(&namespace, link);
        }
    });
    let _ = walking.join();
    Ok(())
}

/// An iterator walks the namespace of the thread that opens it.
fn walk(namespace: &File, link: IterLink) -> Result<()> {
    // SAFETY: moves this thread, which ends soon, to a namespace that the descriptor names.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if entered != 0 {
        return Err(io::Error::last_os_error()).context("cannot enter a network namespace");
    }
    let mut file = link.into_file().context("cannot open the iterator over sockets")?;
    // The program writes nothing: reading is what makes it run.
    let mut nothing = [0; 4096];
    loop {
        match file.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // So many sockets that the kernel wants to be asked again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot walk the sockets"),
        }
    }
}
