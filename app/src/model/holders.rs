//! Who holds which socket, and who uses it. Facts in, facts completed and conclusions out.
//!
//! A *holder* is a descriptor of a process; a socket ends with its last one. The *user* is the process that reads and
//! writes, or until somebody does, the one that accepted or opened it; of a listener, the one that accepts from it.
//! fork(2) copies what the parent holds: the copy is made here, not in the kernel, from what is known of the parent.

mod facts;
mod findings;
mod process;
mod socket;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{HashMap, HashSet};

use bytemuck::Zeroable as _;
use socklife_abi::event::{BORN_BEFORE, Envelope, Holder, Kind, UNKNOWN};

use crate::event::{Detail, Event, HOLDERS};
pub use findings::{Asked, Ended, Held};
use findings::{Evidence, Suspects};
use process::Process;
use socket::{Socket, User};

/// Something that lasts shorter is no finding: a parent may close its copy after the child is done.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Inherited sockets that are told one by one, for each fork.
const TOLD: usize = 16;
/// Holds, at most, for each socket that there is room for: forks multiply them.
const HOLDS: usize = 8;
/// What comes after `last_close` comes soon; a connection that nobody holds may last as long as it is retransmitted.
const GHOST_NS: u64 = 1_000_000_000;
const LONG_NS: u64 = 600 * GHOST_NS;

/// `via` of what no hook sent.
const NO_HOOK: u16 = u16::MAX;

/// What becomes of an event that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is worth telling.
    Tell,
    /// It says nothing that is not known.
    Old,
}

/// A descriptor that was there when the trace began.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Thread group.
    pub pid: u32,
    /// Its name.
    pub comm: [u8; 16],
    /// The descriptor.
    pub fd: i32,
}

/// What events of a socket say that nobody holds any more.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    born: u8,
    lives: u8,
    /// When it may be forgotten.
    until_ns: u64,
}

/// The model.
#[derive(Debug)]
pub struct Holders {
    sockets: HashMap<u64, Socket>,
    processes: HashMap<u32, Process>,
    /// Processes that use the table of descriptors of another (`CLONE_FILES`).
    shared: HashMap<u32, u32>,
    /// Sockets that somebody holds whose user is gone.
    left_behind: HashSet<u64>,
    /// By listener: who serves its connections and holds it all the same.
    suspects: HashMap<u64, Suspects>,
    ended: Vec<Ended>,
    /// What processes did that ended, until it is known whether the kernel skipped something.
    of_ended: Vec<(u64, Evidence)>,
    /// Whose descriptors must be looked at to know more.
    unsure: HashSet<u32>,
    ghosts: HashMap<u64, Ghost>,
    /// How many holds there are in all processes.
    holds: usize,
    /// When something was lost last: of what is older not everything is known.
    lost_ns: u64,
    room: usize,
    full: u64,
}

impl Holders {
    /// Of no more than so many sockets.
    pub fn new(room: usize) -> Self {
        Self {
            sockets: HashMap::new(),
            processes: HashMap::new(),
            shared: HashMap::new(),
            left_behind: HashSet::new(),
            suspects: HashMap::new(),
            ended: Vec::new(),
            of_ended: Vec::new(),
            unsure: HashSet::new(),
            ghosts: HashMap::new(),
            holds: 0,
            lost_ns: 0,
            room,
            full: 0,
        }
    }

    /// How many times something was not followed because there was no room.
    pub fn full(&self) -> u64 {
        self.full
    }

    /// Something was lost, or skipped, up to now.
    pub fn lost(&mut self, now: u64) {
        self.lost_ns = now;
    }

    /// A socket that is older than the trace, and who holds it.
    pub fn before(&mut self, envelope: Envelope, inode: u64, listens: bool, holders: &[Before]) {
        // What an event told of meanwhile is newer.
        if envelope.cookie == 0 || self.sockets.contains_key(&envelope.cookie) || !self.has_room() {
            return;
        }
        let mut socket = Socket::new(Envelope {
            flags: envelope.flags | BORN_BEFORE,
            ..envelope
        });
        socket.since_ns = 0;
        socket.listens = listens;
        socket.inode = inode;
        self.sockets.insert(envelope.cookie, socket);
        for holder in holders {
            let process = self
                .processes
                .entry(holder.pid)
                .or_insert_with(|| Process::new(holder.comm));
            process.seen_ns = envelope.time_ns;
            self.gain(
                holder.pid,
                envelope.cookie,
                holder.fd,
                socklife_abi::event::how::BEFORE,
                envelope.time_ns,
            );
        }
        // Of several nobody knows who uses it.
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie)
            && let [first, others @ ..] = holders
            && others.iter().all(|other| other.pid == first.pid)
        {
            socket.user = Some(User {
                who: holder(first.pid, first.fd, first.comm),
                since_ns: UNKNOWN,
                accepted: false,
                used: false,
                execs: 0,
            });
        }
    }

    /// Takes an event in, completes it, and appends what follows from it.
    pub fn see(&mut self, event: &mut Event, follow: &mut Vec<Event>) -> Look {
        let anew = self.stamp(event);
        let envelope = event.envelope;
        match &mut event.detail {
            Detail::Bound(bound) => self.opened(&envelope, bound.fd, bound.inode, anew),
            Detail::Listening(listening) => {
                self.opened(&envelope, listening.fd, 0, anew);
                if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
                    socket.listens = true;
                }
            }
            Detail::Connect(connect) => self.opened(&envelope, connect.fd, connect.inode, anew),
            Detail::Accepted(accepted) => {
                let (fd, listener) = (accepted.fd, accepted.queues.listener);
                self.accepted(&envelope, fd, listener, follow);
            }
            Detail::FdOpened(opened) => {
                let Some(how) = self.fd_opened(&envelope, opened, follow) else {
                    return Look::Old;
                };
                opened.how = how;
            }
            Detail::FdClosed(closed) => {
                self.has_inode(&envelope, closed.inode);
                let Some((fd, left)) = self.fd_closed(&envelope, closed.fd) else {
                    return Look::Old;
                };
                closed.fd = fd;
                closed.left = left;
            }
            Detail::FdsClosed(closed) => return self.range_closed(&envelope, closed.first..=closed.last, follow),
            Detail::LastClose(_) => self.last_close(&envelope),
            Detail::Touched(touched) => self.touched(&envelope, touched, follow),
            Detail::Forked(forked) => {
                let (child, shared) = (forked.child, forked.shared != 0);
                return self.forked(&envelope, child, shared, follow);
            }
            Detail::Executed(executed) => {
                let open = executed.open;
                return self.executed(&envelope, &open, follow);
            }
            Detail::Exited(_) => return self.exited(&envelope, follow),
            _ => {}
        }
        Look::Tell
    }

    /// Says in the event what is known of its socket. True where another life of that begins.
    fn stamp(&mut self, event: &mut Event) -> bool {
        let cookie = event.envelope.cookie;
        // A listener's totals say it themselves.
        let says_itself = event.kind() == Kind::Listener;
        if let Some(socket) = self.sockets.get_mut(&cookie) {
            let anew = socket.live(&event.detail, &mut event.envelope);
            if !says_itself {
                event.envelope.flags |= socket.born();
                event.envelope.lives = socket.lives();
            }
            return anew;
        }
        if !says_itself
            && cookie != 0
            && let Some(ghost) = self.ghosts.get_mut(&cookie)
        {
            event.envelope.flags |= ghost.born;
            event.envelope.lives = ghost.lives;
            if event.kind() == Kind::Closed {
                ghost.until_ns = event.envelope.time_ns + GHOST_NS;
            }
        }
        false
    }

    fn has_room(&mut self) -> bool {
        let room = self.sockets.len() < self.room;
        self.full += u64::from(!room);
        room
    }

    /// The process whose table of descriptors this one uses: its own, as a rule.
    fn table_of(&self, pid: u32) -> u32 {
        self.shared.get(&pid).copied().unwrap_or(pid)
    }

    /// The socket of an event, with its newest four-tuple; `None` where it has no name or no room.
    fn socket(&mut self, envelope: &Envelope) -> Option<&mut Socket> {
        if envelope.cookie == 0 || (!self.sockets.contains_key(&envelope.cookie) && !self.has_room()) {
            return None;
        }
        let socket = self
            .sockets
            .entry(envelope.cookie)
            .or_insert_with(|| Socket::new(*envelope));
        socket.name(envelope);
        Some(socket)
    }

    /// The process of an event.
    fn process(&mut self, envelope: &Envelope) -> &mut Process {
        let pid = self.table_of(envelope.pid);
        let process = self.processes.entry(pid).or_insert_with(|| Process::new(envelope.comm));
        if pid == envelope.pid && envelope.comm != [0; 16] {
            process.comm = envelope.comm;
        }
        process
    }

    /// The socket has this inode.
    fn has_inode(&mut self, envelope: &Envelope, inode: u64) {
        if inode != 0
            && let Some(socket) = self.sockets.get_mut(&envelope.cookie)
        {
            socket.inode = inode;
        }
    }
}

/// What a process did, as /proc shows.
fn by(pid: u32, comm: [u8; 16], now: u64) -> Envelope {
    Envelope {
        pid,
        tid: pid,
        comm,
        ..quiet(now)
    }
}

/// The time of what no hook sent and no task did.
fn quiet(now: u64) -> Envelope {
    Envelope {
        time_ns: now,
        via: NO_HOOK,
        ..Envelope::zeroed()
    }
}

fn holder(pid: u32, fd: i32, comm: [u8; 16]) -> Holder {
    Holder { pid, fd, comm }
}

fn event(mut envelope: Envelope, detail: Detail) -> Event {
    envelope.kind = detail.kind() as u8;
    Event { envelope, detail }
}

/// The kinds that come from no hook, but are concluded here.
pub const MADE: u64 = Kind::set(&[Kind::Inherited, Kind::HandedOff, Kind::Finding]);

/// What must be asked for so that these can be told.
pub fn sources(kinds: u64) -> u64 {
    const FACTS: u64 = Kind::set(&[Kind::Bound, Kind::Listening, Kind::Connect, Kind::Accepted]);
    if kinds & (HOLDERS | MADE) == 0 {
        kinds
    } else {
        kinds | HOLDERS | FACTS
    }
}
