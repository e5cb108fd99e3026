//! What is said of a listener.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use socklife_abi::event::{self as abi, Total, UNKNOWN_DEPTH};

use crate::{
    holders::Holders,
    model::{Key, Listener, Listeners, Oldest, Process, figures},
};

/// A listener, as it is now.
pub struct Row<'a> {
    /// Which.
    pub key: Key,
    /// What is known of it.
    pub listener: &'a Listener,
    /// Who has it, and how many others do.
    pub owner: Option<(Process, u32)>,
    /// What came in this interval; `None` before the first is over.
    pub recent: Option<Recent>,
    /// How long the first in the accept queue has waited.
    pub oldest: Wait,
}

/// What came in an interval.
pub struct Recent {
    /// How long it was.
    pub interval_ns: u64,
    /// SYNs.
    pub syns: u64,
    /// Accepts.
    pub accepts: u64,
    /// Accepts that nobody saw: how long those connections waited is unknown.
    pub unseen: u64,
    /// Refused SYNs and refused ACKs.
    pub refused: u64,
}

/// A wait that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nobody waits.
    None,
    /// So long.
    For(u64),
    /// Since before the trace.
    Unknown,
}

impl Row<'_> {
    /// Its address; unknown where only its cookie was told.
    pub fn address(&self) -> Option<IpAddr> {
        self.listener.address()
    }

    /// As the event `listener` has it.
    pub fn counted(&self) -> abi::Listener {
        abi::Listener {
            queues: abi::Queues {
                listener: match self.key {
                    Key::Cookie(cookie) => cookie,
                    Key::Address(..) => 0,
                },
                ..self.listener.queues
            },
            totals: self.totals(),
            inode: self.listener.inode,
            before: u32::from(self.listener.before),
            fastopen_queue: self.listener.fastopen.0,
            fastopen_queue_limit: self.listener.fastopen.1,
            reserved: 0,
        }
    }

    fn totals(&self) -> figures::Totals {
        let mut totals = self.listener.totals();
        totals[Total::AcceptUnseen as usize] = self.listener.unseen_accepts();
        totals
    }

    /// Those first where something waits or is refused, then those where much happens.
    fn rank(&self) -> impl Ord + use<> {
        let depth = |depth: u32| if depth == UNKNOWN_DEPTH { 0 } else { u64::from(depth) };
        let queues = &self.listener.queues;
        let (refused, activity) = self
            .recent
            .as_ref()
            .map_or((0, 0), |recent| (recent.refused, recent.syns + recent.accepts));
        (
            Reverse(refused + depth(queues.syn_queue) + depth(queues.accept_queue)),
            Reverse(activity),
            self.listener.port,
            self.address(),
            self.listener.netns,
            self.key,
        )
    }
}

/// A row for each listener that was there in this interval, the most interesting first.
pub fn rows<'a>(
    listeners: &'a Listeners,
    holders: &HashMap<u64, Holders>,
    now_ns: u64,
    interval_ns: Option<u64>,
) -> Vec<Row<'a>> {
    let mut rows: Vec<_> = listeners
        .iter()
        .filter(|(_, listener)| !listener.was_closed)
        .map(|(key, listener)| Row {
            key,
            listener,
            owner: owner(listener, holders),
            recent: interval_ns.map(|interval_ns| recent(listener, interval_ns)),
            oldest: match listeners.oldest(key) {
                None => Wait::None,
                Some(Oldest::Unknown) => Wait::Unknown,
                Some(Oldest::Since(since)) => Wait::For(now_ns.saturating_sub(since)),
            },
        })
        .collect();
    rows.sort_by_cached_key(Row::rank);
    rows
}

/// Who called listen(2), or held it at the start, or takes most of its connections.
fn owner(listener: &Listener, holders: &HashMap<u64, Holders>) -> Option<(Process, u32)> {
    let held = holders
        .get(&listener.inode)
        .map(|holders| (holders.first, holders.more));
    let alone = |process| (process, 0);
    listener
        .owner
        .map(alone)
        .or(held)
        .or_else(|| listener.acceptors.first().map(alone))
}

fn recent(listener: &Listener, interval_ns: u64) -> Recent {
    let totals = listener.figures.recent();
    Recent {
        interval_ns,
        syns: figures::arrivals(&totals),
        accepts: totals[Total::Accepted as usize],
        unseen: listener.recently_unseen(),
        refused: Listener::refusals(&totals),
    }
}
