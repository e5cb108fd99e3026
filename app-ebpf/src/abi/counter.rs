//! What the kernel side can fail to tell. Events that found the ring buffer full are counted by
//! [`Kind`](crate::event::Kind) beside these.

use crate::event::KINDS;

/// What was missed, and counted, by the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Missed {
    /// The table of live sockets is full: lifetimes and PIDs of further sockets are unknown.
    SocketTable = 0,
    /// A call that was entered could not be remembered until it returned: its event is lost.
    CallTable = 1,
    /// The table of half-open connections is full: how long further ones stay in the SYN queue is unknown.
    RequestTable = 2,
    /// The table of listeners is full: what happens to further ones is told, but not counted.
    ListenerTable = 3,
    /// The table of processes that hold sockets is full: what becomes of further ones is not told.
    ProcessTable = 4,
    /// The table of `sk_buff`s that are alive is full: further ones are not counted.
    SkbTable = 5,
    /// The table of connections or callers that `sk_buff`s are counted of is full: further ones are not counted.
    SkbTallyTable = 6,
    /// An `sk_buff` was allocated where one was alive: nobody saw that one's end.
    SkbEnd = 7,
    /// The table of places that drop segments is full: what further ones drop is not counted.
    DropTable = 8,
    /// Sockets whose end nobody saw when it came: it was told later.
    End = 9,
    /// Connects, and children of listeners, that are gone: whether they were ever connected, and closed, nobody saw.
    Outcome = 10,
}

impl Missed {
    /// Every counter.
    pub const ALL: &'static [Self] = &[
        Self::SocketTable,
        Self::CallTable,
        Self::RequestTable,
        Self::ListenerTable,
        Self::ProcessTable,
        Self::SkbTable,
        Self::SkbTallyTable,
        Self::SkbEnd,
        Self::DropTable,
        Self::End,
        Self::Outcome,
    ];

    /// Whether it tells of what nobody saw when it came.
    #[must_use]
    pub const fn is_unseen(self) -> bool {
        matches!(self, Self::End | Self::Outcome)
    }

    /// The name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SocketTable => "socket_table_full",
            Self::CallTable => "call_table_full",
            Self::RequestTable => "request_table_full",
            Self::ListenerTable => "listener_table_full",
            Self::ProcessTable => "process_table_full",
            Self::SkbTable => "skb_table_full",
            Self::SkbTallyTable => "skb_tally_table_full",
            Self::SkbEnd => "skb_end_missed",
            Self::DropTable => "drop_table_full",
            Self::End | Self::Outcome => UNSEEN,
        }
    }
}

/// The stage of what happened, and no program saw.
pub const UNSEEN: &str = "unseen";

/// Slots for [`Missed`].
pub const MISSED: usize = 16;

/// A counter that the programs write and user space reads.
#[derive(Clone, Copy, Debug)]
pub enum Counter {
    /// Records of this kind that found the ring buffer full.
    Lost(usize),
    /// Events of this kind that were counted and not sent, because their listener had its share of the second.
    Held(usize),
    /// See [`Missed`].
    Missed(usize),
    /// Events of this kind that did not come, as something later tells.
    Unseen(usize),
}

impl Counter {
    /// Its place among the counters of one CPU.
    #[must_use]
    pub const fn slot(self) -> usize {
        match self {
            Self::Lost(kind) => kind,
            Self::Held(kind) => KINDS + kind,
            Self::Missed(missed) => 2 * KINDS + missed,
            Self::Unseen(kind) => 2 * KINDS + MISSED + kind,
        }
    }
}

/// Counters of one CPU: a whole number of cache lines.
pub const COUNTERS: usize = 3 * KINDS + MISSED;

const _: () = assert!(COUNTERS.is_multiple_of(8));
