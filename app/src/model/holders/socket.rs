//! One socket, and the process that uses it.

use std::collections::HashSet;

use socklife_abi::event::{BORN_BEFORE, CAUSE_LOCAL, Envelope, HAS_TASK, Holder, state};

use crate::event::Detail;

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
    /// When it was first told of; 0 where it is older than the trace.
    pub since_ns: u64,
    /// Its inode, or 0.
    pub inode: u64,
    /// It is a listener.
    pub listens: bool,
    /// Cookie of the listener that it came from, or 0.
    pub listener: u64,
    /// The processes that hold it.
    pub holders: HashSet<u32>,
    /// How many descriptors of it they have.
    pub descriptors: u32,
    /// Somebody may hold it who is not followed: there was no room.
    pub blind: bool,
    /// The process that uses it, also when that has let go.
    pub user: Option<User>,
    /// The holders that accept from it.
    pub acceptors: HashSet<u32>,
    /// When the user let go.
    pub left_ns: u64,
    /// It is in CLOSE, and may begin another life.
    over: bool,
}

/// What an event means for the life of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Its four-tuple is that of a life that begins, or is about to.
    Begins,
    Ends,
    Neither,
}

fn turn(detail: &Detail) -> Turn {
    match detail {
        Detail::Bound(_) | Detail::Listening(_) | Detail::Connect(_) => Turn::Begins,
        Detail::State(change) => match change.newstate {
            state::LISTEN => Turn::Begins,
            state::CLOSE => Turn::Ends,
            _ => Turn::Neither,
        },
        Detail::Closed(_) => Turn::Ends,
        // Where no SYN was sent, nothing had begun.
        Detail::ConnectFailed(failed) if failed.cause != CAUSE_LOCAL => Turn::Ends,
        _ => Turn::Neither,
    }
}

impl Socket {
    pub fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            since_ns: envelope.time_ns,
            inode: 0,
            listens: false,
            listener: 0,
            holders: HashSet::new(),
            descriptors: 0,
            blind: false,
            user: None,
            acceptors: HashSet::new(),
            left_ns: 0,
            over: false,
        }
    }

    /// Takes the four-tuple of a newer event, if it has one.
    pub fn name(&mut self, envelope: &Envelope) {
        if envelope.family != 0 && (envelope.dport != 0 || self.envelope.dport == 0) {
            self.take(envelope);
        }
    }

    fn take(&mut self, envelope: &Envelope) {
        self.envelope = Envelope {
            flags: envelope.flags | self.born(),
            lives: self.envelope.lives,
            ..*envelope
        };
    }

    /// `BORN_BEFORE`, if it is older than the trace.
    pub fn born(&self) -> u8 {
        self.envelope.flags & BORN_BEFORE
    }

    /// Its cookie.
    pub fn cookie(&self) -> u64 {
        self.envelope.cookie
    }

    /// Lives that ended before this one.
    pub fn lives(&self) -> u8 {
        self.envelope.lives
    }

    /// It has a peer, or had one.
    pub fn is_connection(&self) -> bool {
        !self.listens && self.envelope.dport != 0
    }

    /// An event of it: begins another life, or has the four-tuple of this one. True where another life began.
    pub fn live(&mut self, detail: &Detail, envelope: &mut Envelope) -> bool {
        match turn(detail) {
            Turn::Begins => {
                let another = std::mem::take(&mut self.over);
                if another {
                    self.envelope.lives = self.envelope.lives.saturating_add(1);
                    self.listens = false;
                    self.listener = 0;
                    self.acceptors.clear();
                }
                if envelope.family != 0 {
                    self.take(envelope);
                }
                return another;
            }
            Turn::Ends => self.over = true,
            Turn::Neither => {}
        }
        self.recall(envelope);
        false
    }

    /// A socket that has ended may have lost its four-tuple, which it had before.
    fn recall(&self, envelope: &mut Envelope) {
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
