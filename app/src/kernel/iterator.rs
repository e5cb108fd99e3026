//! Walking the sockets of network namespaces with an iterator over TCP.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Iter, iter::IterLink},
};
use socklife_abi::program::Program;

use super::namespaces::{self, Namespace};

/// How much the kernel writes at a time, at most (`bpf_seq_read`).
const PAGE: usize = 32_768;

/// The program.
pub fn program(ebpf: &mut Ebpf, program: Program) -> Result<&mut Iter> {
    let symbol = program.symbol();
    ebpf.program_mut(symbol)
        .with_context(|| format!("the object has no program {symbol}"))?
        .try_into()
        .with_context(|| format!("{symbol} is no iterator"))
}

/// What a walk came to.
pub struct Walk {
    /// All that the program wrote.
    pub written: Vec<u8>,
    /// Namespaces that could not be entered, by inode.
    pub closed: Vec<u32>,
}

/// Walks each of these namespaces with a loaded program.
pub fn walk(program: &mut Iter, namespaces: &[Namespace]) -> Result<Walk> {
    let mut visits = Vec::with_capacity(namespaces.len());
    for namespace in namespaces {
        let link = program.attach().context("cannot attach the iterator over sockets")?;
        let link = program.take_link(link).context("cannot keep the iterator's link")?;
        visits.push((namespace, link));
    }
    let mut written = Vec::new();
    let closed = namespaces::visit(visits, |netns, link| {
        read(link, &mut written).with_context(|| format!("in network namespace {netns}"))
    })?;
    Ok(Walk { written, closed })
}

/// The walk is of the namespace of the thread that opens the iterator; reading makes the program run.
fn read(link: IterLink, written: &mut Vec<u8>) -> Result<()> {
    let mut file = link.into_file().context("cannot open the iterator over sockets")?;
    let mut page = [0; PAGE];
    loop {
        match file.read(&mut page) {
            Ok(0) => return Ok(()),
            Ok(read) => written.extend_from_slice(page.get(..read).unwrap_or_default()),
            // So many sockets that the kernel wants to be asked again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot walk the sockets"),
        }
    }
}
