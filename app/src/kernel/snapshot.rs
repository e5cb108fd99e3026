//! What is there when the trace begins: the iterator puts it into the kernel side's tables, one namespace after the other.

use anyhow::Result;
use aya::Ebpf;
use socklife_abi::program::Program;

use super::{iterator, namespaces::Namespace};

/// Walks every TCP socket of these namespaces. A namespace that cannot be entered is left out: what is in there
/// is known from its next event on. Their inodes are returned.
pub fn take(ebpf: &mut Ebpf, namespaces: &[Namespace]) -> Result<Vec<u32>> {
    let program = iterator::program(ebpf, Program::SnapshotIter)?;
    // The program writes nothing.
    iterator::walk(program, namespaces).map(|walk| walk.closed)
}
