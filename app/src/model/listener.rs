//! One listener, as far as events told.

use std::net::IpAddr;

use socklife_abi::event::{self as abi, Queues, UNKNOWN_DEPTH};

use super::{
    Acceptors, Figures, Waits,
    figures::{self, Totals},
};
use crate::event::{Event, Task};

/// Local addresses of connections that are kept where the listener's own is unknown.
const ADDRESSES: usize = 4;

/// Which listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// By its socket's cookie.
    Cookie(u64),
    /// By its address, where nobody knows the cookie, or which of several it was.
    Address(u32, IpAddr, u16),
}

/// A process, by what it was called then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Thread group.
    pub pid: u32,
    /// `comm`, as the kernel has it.
    pub comm: [u8; 16],
}

impl From<Task> for Process {
    fn from(task: Task) -> Self {
        Self {
            pid: task.pid,
            comm: task.comm,
        }
    }
}

/// What is known of a listener.
#[derive(Debug)]
pub struct Listener {
    /// Inode of its network namespace.
    pub netns: u32,
    /// Its port.
    pub port: u16,
    /// The address that it is bound to, if anything told that.
    pub bound: Option<IpAddr>,
    /// Addresses at which its connections came in, the first few; only while `bound` is unknown.
    pub reached: Vec<IpAddr>,
    /// Which of several listeners on this address it was, or whether there is one, is unknown.
    pub group: bool,
    /// Its two queues, each figure as it was seen last.
    pub queues: Queues,
    queues_at: u64,
    /// Children of TCP Fast Open whose handshake is not done, and how many it takes.
    pub fastopen: (u32, u32),
    /// The backlog that listen(2) was called with.
    pub asked: Option<i32>,
    /// Who called listen(2).
    pub owner: Option<Process>,
    /// Inode of its socket, or 0.
    pub inode: u64,
    /// It is older than the trace.
    pub before: bool,
    /// Children that waited when the trace began: nobody knows since when. They are the first to be accepted.
    pub older_children: u32,
    /// Some wait, and nobody saw them come, when it was looked at last.
    pub strangers: bool,
    /// Older children when it was seen first.
    pub older_at_first: u32,
    /// Connections that left the accept queue, and nobody saw how.
    pub unseen: u64,
    /// As many as that, when the interval began.
    unseen_mark: u64,
    /// It is gone.
    pub closed: bool,
    /// It was gone before this interval.
    pub was_closed: bool,
    /// What happened to it, counted.
    pub figures: Figures,
    /// Time that connections stood half-open.
    pub half_open: Waits,
    /// Time that they then waited for accept(2).
    pub accept: Waits,
    /// Who accepted.
    pub acceptors: Acceptors,
}

impl Listener {
    /// Nothing is known but where.
    pub fn new(netns: u32, port: u16) -> Self {
        Self {
            netns,
            port,
            bound: None,
            reached: Vec::new(),
            group: false,
            queues: Queues::UNKNOWN,
            queues_at: 0,
            fastopen: (UNKNOWN_DEPTH, 0),
            asked: None,
            owner: None,
            inode: 0,
            before: false,
            older_children: 0,
            older_at_first: 0,
            strangers: false,
            unseen: 0,
            unseen_mark: 0,
            closed: false,
            was_closed: false,
            figures: Figures::default(),
            half_open: Waits::default(),
            accept: Waits::default(),
            acceptors: Acceptors::default(),
        }
    }

    /// Its address: what it is bound to, or where a connection came in.
    pub fn address(&self) -> Option<IpAddr> {
        self.bound.or_else(|| self.reached.first().copied())
    }

    /// A connection came in at this address.
    pub fn reached_at(&mut self, address: IpAddr) {
        if self.bound.is_none() && self.reached.len() < ADDRESSES && !self.reached.contains(&address) {
            self.reached.push(address);
        }
    }

    /// Whether a packet to this address may be for it, and how well it fits.
    pub fn serves(&self, address: IpAddr) -> Fit {
        match self.bound {
            Some(bound) if bound == address => Fit::Exact,
            // An IPv6 listener takes IPv4 as well, unless it was told not to.
            Some(bound) if bound.is_unspecified() && (bound.is_ipv6() || address.is_ipv4()) => Fit::Any,
            Some(_) => Fit::Not,
            None if self.reached.contains(&address) => Fit::Exact,
            None => Fit::Not,
        }
    }

    /// Its queues at that time. A figure that is unknown there stays what it was.
    pub fn queues_were(&mut self, time_ns: u64, seen: &Queues) {
        if time_ns < self.queues_at {
            return;
        }
        let known = |old: &mut u32, new: u32| {
            if new != UNKNOWN_DEPTH {
                *old = new;
            }
        };
        let queues = &mut self.queues;
        known(&mut queues.syn_queue, seen.syn_queue);
        known(&mut queues.syn_queue_limit, seen.syn_queue_limit);
        known(&mut queues.accept_queue, seen.accept_queue);
        known(&mut queues.accept_queue_limit, seen.accept_queue_limit);
        self.queues_at = time_ns;
    }

    /// listen(2) was called.
    pub fn listens(&mut self, event: &Event, listening: &abi::Listening) {
        self.bound = Some(event.laddr());
        self.group = false;
        self.asked = (listening.asked_known != 0).then_some(listening.backlog_asked);
        if let Some(task) = event.task() {
            self.owner = Some(task.into());
        }
        let nothing_yet = |depth: u32| if depth == UNKNOWN_DEPTH { 0 } else { depth };
        let queues = Queues {
            syn_queue: nothing_yet(self.queues.syn_queue),
            accept_queue: nothing_yet(self.queues.accept_queue),
            accept_queue_limit: listening.backlog,
            ..Queues::UNKNOWN
        };
        self.queues_were(event.envelope.time_ns, &queues);
    }

    /// The kernel side's totals, and what it knows of the listener.
    pub fn counted(&mut self, event: &Event, counted: &abi::Listener) {
        self.bound = Some(event.laddr());
        self.reached = Vec::new();
        self.group = false;
        self.inode = counted.inode;
        self.before = counted.before != 0;
        self.fastopen = (counted.fastopen_queue, counted.fastopen_queue_limit);
        self.figures.set(event.envelope.time_ns, &counted.totals);
        self.queues_were(event.envelope.time_ns, &counted.queues);
    }

    /// The effective backlog.
    pub fn backlog(&self) -> Option<u32> {
        (self.queues.accept_queue_limit != UNKNOWN_DEPTH).then_some(self.queues.accept_queue_limit)
    }

    /// The backlog that was asked for, where the listener got another: `net.core.somaxconn` bounds it.
    pub fn clamped(&self) -> Option<(i32, u32)> {
        self.asked
            .zip(self.backlog())
            .filter(|(asked, backlog)| i64::from(*asked) != i64::from(*backlog))
    }

    /// Everything since the start of the trace.
    pub fn totals(&self) -> Totals {
        self.figures.totals()
    }

    /// Accepts that nobody saw: those that the kernel side found out, or as many as left the queue without one, where the
    /// kernel side's totals want as many.
    pub fn unseen_accepts(&self) -> u64 {
        let totals = self.totals();
        let of = |total: abi::Total| totals[total as usize];
        let waiting = match self.queues.accept_queue {
            UNKNOWN_DEPTH => 0,
            depth => u64::from(depth),
        };
        let came = of(abi::Total::AcceptQueued) + u64::from(self.older_at_first);
        let went = of(abi::Total::Accepted) + of(abi::Total::NeverAccepted) + waiting;
        of(abi::Total::AcceptUnseen).max(self.unseen.min(came.saturating_sub(went)))
    }

    /// The same in this interval.
    pub fn recently_unseen(&self) -> u64 {
        self.unseen_accepts().saturating_sub(self.unseen_mark)
    }

    /// Refused SYNs and refused ACKs of these totals.
    pub fn refusals(totals: &Totals) -> u64 {
        figures::refused_syns(totals).iter().sum::<u64>() + totals[abi::Total::AcceptRefused as usize]
    }

    /// The next interval begins.
    pub fn next_interval(&mut self) {
        self.was_closed = self.closed;
        self.unseen_mark = self.unseen_accepts();
        self.figures.next_interval();
        self.half_open.next_interval();
        self.accept.next_interval();
    }
}

/// How well a listener fits an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is that address.
    Exact,
    /// It listens on any.
    Any,
    /// It does not.
    Not,
}
