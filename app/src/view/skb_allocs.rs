//! `sk_buff`s by who allocated them, and by connection.

mod json;
mod table;

pub use json::{CALLER_FIELDS, CONNECTION_FIELDS, TOTAL_FIELDS, json};
pub use table::Table;

use socklife_abi::skb::{CallerTally, ConnectionTally};

use crate::model::{Skbs, skbs::Counted};

/// What is shown of an interval.
pub struct Block<'a> {
    /// Most allocations in the interval first, then of all.
    pub callers: Vec<(&'a str, &'a Counted<CallerTally>)>,
    /// Those with most alive first, then what they got in the interval.
    pub connections: Vec<&'a Counted<ConnectionTally>>,
    /// Of all callers.
    pub total: Counted<CallerTally>,
    /// How many connections there were.
    pub connections_seen: u64,
    /// How long it was; unknown for what came before.
    pub interval_ns: Option<u64>,
    /// Pairs are counted: an `sk_buff` with its first clone. How many bytes were asked for is unknown.
    pub pairs: bool,
}

impl<'a> Block<'a> {
    /// Of the model as it is.
    pub fn of(skbs: &'a Skbs, interval_ns: Option<u64>, pairs: bool) -> Self {
        let mut callers: Vec<_> = skbs.callers().collect();
        callers.sort_by_key(|(_, caller)| std::cmp::Reverse((caller.in_interval(), caller.tally.allocated)));
        let mut connections: Vec<_> = skbs.connections().collect();
        connections.sort_by_key(|connection| {
            let tally = &connection.tally;
            let most = std::cmp::Reverse((tally.alive(), connection.in_interval()));
            (most, tally.netns, tally.sport, tally.dport, tally.cookie)
        });
        Self {
            callers,
            connections,
            total: skbs.total(),
            connections_seen: skbs.connections_seen(),
            interval_ns,
            pairs,
        }
    }
}

/// The mean of those that are gone.
fn mean(lifetime_ns: u64, freed: u64) -> Option<u64> {
    lifetime_ns.checked_div(freed)
}
