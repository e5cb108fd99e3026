//! What is there when the trace begins: the iterator puts it into the kernel side's tables, one namespace after the other.

use anyhow::Result;
use aya::Ebpf;
use socklife_abi::program::Program;

use super::{iterator, namespaces};

/// Walks every TCP socket of this namespace, or of all. A namespace that cannot be entered is left out: what is in there
/// is known from its next event on. Their inodes are returned.
pub fn take(ebpf: &mut Ebpf, netns: u32) -> Result<Vec<u32>> {
    let program = iterator::program(ebpf, Program::SnapshotIter)?;
    // The program writes nothing.
    iterator::walk(program, &namespaces::find(netns)).map(|walk| walk.closed)
}
