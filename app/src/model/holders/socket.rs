//! One socket, as far as its holders are concerned.

use std::collections::HashSet;

use socklife_abi::event::{BORN_BEFORE, Envelope, HAS_TASK, Holder};

/// The process that uses a socket.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Who, with the descriptor.
    pub who: Holder,
    /// Since when it has it.
    pub since_ns: u64,
    /// It has it from accept(2).
    pub accepted: bool,
    /// It has read or written.
    pub used: bool,
    /// How many programs it had run by then.
    pub execs: u32,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// The last event that named its four-tuple.
    envelope: Envelope,
    /// Its inode, or 0.
    pub inode: u64,
    /// It is a listener.
    pub listens: bool,
    /// Cookie of the listener that it came from, or 0.
    pub listener: u64,
    /// The processes that hold it.
    pub holders: HashSet<u32>,
    /// The process that uses it, also when that has let go.
    pub user: Option<User>,
    /// When the user let go.
    pub left_ns: u64,
}

impl Socket {
    pub fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            inode: 0,
            listens: false,
            listener: 0,
            holders: HashSet::new(),
            user: None,
            left_ns: 0,
        }
    }

    /// Takes the four-tuple of a newer event, if it has one.
    pub fn name(&mut self, envelope: &Envelope) {
        if envelope.family != 0 && (envelope.dport != 0 || self.envelope.dport == 0) {
            self.envelope = Envelope {
                flags: envelope.flags | self.born(),
                ..*envelope
            };
        }
    }

    /// `BORN_BEFORE`, if it is older than the trace.
    pub fn born(&self) -> u8 {
        self.envelope.flags & BORN_BEFORE
    }

    /// A socket that has ended may have lost its four-tuple, which it had before.
    pub fn recall(&self, envelope: &mut Envelope) {
        if envelope.dport == 0 && self.envelope.dport != 0 {
            envelope.saddr = self.envelope.saddr;
            envelope.daddr = self.envelope.daddr;
            envelope.sport = self.envelope.sport;
            envelope.dport = self.envelope.dport;
        }
    }

    /// An envelope that names this socket, at the time of another event, and where the task counts, by its task.
    pub fn speak(&self, at: &Envelope, by_task: bool) -> Envelope {
        Envelope {
            time_ns: at.time_ns,
            via: at.via,
            cpu: at.cpu,
            pid: if by_task { at.pid } else { 0 },
            tid: if by_task { at.tid } else { 0 },
            uid: if by_task { at.uid } else { 0 },
            comm: if by_task { at.comm } else { [0; 16] },
            flags: (self.envelope.flags & !HAS_TASK) | if by_task { HAS_TASK } else { 0 },
            ..self.envelope
        }
    }
}
