//! Who calls accept(2) on a listener, and how often.

use super::Process;

/// More processes than that are counted together.
const MOST: usize = 64;

/// The processes that accepted from one listener.
#[derive(Debug, Default)]
pub struct Acceptors {
    known: Vec<Acceptor>,
    /// Accepts of processes beyond the first [`MOST`].
    others: u64,
}

/// A process, and how many connections it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptor {
    /// Who.
    pub process: Process,
    /// How many.
    pub accepted: u64,
}

impl Acceptors {
    /// One more by this process; its name may have changed.
    pub fn add(&mut self, process: Process) {
        if let Some(known) = self.known.iter_mut().find(|known| known.process.pid == process.pid) {
            known.process = process;
            known.accepted += 1;
        } else if self.known.len() < MOST {
            self.known.push(Acceptor { process, accepted: 1 });
        } else {
            self.others += 1;
        }
    }

    /// Who took most comes first.
    pub fn ranked(&self) -> Vec<Acceptor> {
        let mut ranked = self.known.clone();
        ranked.sort_by_key(|acceptor| (std::cmp::Reverse(acceptor.accepted), acceptor.process.pid));
        ranked
    }

    /// Who took most.
    pub fn first(&self) -> Option<Process> {
        self.ranked().first().map(|acceptor| acceptor.process)
    }

    /// All accepts by a process that was seen.
    pub fn total(&self) -> u64 {
        self.known.iter().map(|acceptor| acceptor.accepted).sum::<u64>() + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::{Acceptors, MOST, Process};

    fn process(pid: u32) -> Process {
        Process { pid, comm: [b'x'; 16] }
    }

    #[test]
    fn the_most_active_comes_first_and_the_rest_is_counted() {
        let mut acceptors = Acceptors::default();
        for pid in 1..=100 {
            acceptors.add(process(pid));
        }
        acceptors.add(process(7));
        let ranked = acceptors.ranked();
        assert_eq!((ranked[0].process.pid, ranked[0].accepted), (7, 2));
        assert_eq!((ranked.len(), acceptors.total()), (MOST, 101));
        assert_eq!(acceptors.first(), Some(process(7)));
    }
}
