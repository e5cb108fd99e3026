//! What was counted of `sk_buff`s, by the name of who allocated them and by connection.

use std::collections::{BTreeMap, HashMap};

use socklife_abi::skb::{CallerTally, ConnectionTally};

/// Counts since the start, and how many of them are of the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted<T> {
    /// Since the start.
    pub tally: T,
    /// Allocations before the interval began.
    pub before: u64,
}

impl Counted<CallerTally> {
    /// Allocations in the interval.
    pub fn in_interval(&self) -> u64 {
        self.tally.allocated.saturating_sub(self.before)
    }
}

impl Counted<ConnectionTally> {
    /// What the connection got in the interval.
    pub fn in_interval(&self) -> u64 {
        got(&self.tally).saturating_sub(self.before)
    }
}

/// What a connection got, wherever it came from.
fn got(tally: &ConnectionTally) -> u64 {
    tally.sent + tally.received + tally.arrived
}

/// Callers and connections.
#[derive(Debug, Default)]
pub struct Skbs {
    callers: BTreeMap<String, Counted<CallerTally>>,
    connections: HashMap<u64, Counted<ConnectionTally>>,
    seen: u64,
}

impl Skbs {
    /// Takes the kernel side's counts, all of them; `name` is that of a return address.
    pub fn take(
        &mut self,
        callers: &[(u64, CallerTally)],
        connections: &[(u64, ConnectionTally)],
        name: impl Fn(u64) -> String,
    ) {
        let mut sums: BTreeMap<String, CallerTally> = BTreeMap::new();
        for (address, tally) in callers {
            let sum = sums.entry(name(*address)).or_default();
            sum.allocated += tally.allocated;
            sum.freed += tally.freed;
            sum.bytes += tally.bytes;
            sum.truesize += tally.truesize;
            sum.truesize_freed += tally.truesize_freed;
            sum.lifetime_ns += tally.lifetime_ns;
        }
        for (name, sum) in sums {
            self.callers.entry(name).or_default().tally = sum;
        }
        for (key, tally) in connections {
            let counted = self.connections.entry(*key).or_insert_with(|| {
                self.seen += 1;
                Counted {
                    tally: *tally,
                    before: 0,
                }
            });
            counted.tally = *tally;
        }
    }

    /// What was taken was shown: the next interval begins, and what is over is forgotten.
    pub fn next_interval(&mut self) {
        for caller in self.callers.values_mut() {
            caller.before = caller.tally.allocated;
        }
        self.connections
            .retain(|_, connection| connection.tally.closed == 0 || connection.tally.alive() != 0);
        for connection in self.connections.values_mut() {
            connection.before = got(&connection.tally);
        }
    }

    /// By name.
    pub fn callers(&self) -> impl Iterator<Item = (&str, &Counted<CallerTally>)> {
        self.callers.iter().map(|(name, caller)| (name.as_str(), caller))
    }

    /// Those that are there, or ended in the interval.
    pub fn connections(&self) -> impl Iterator<Item = &Counted<ConnectionTally>> {
        self.connections.values()
    }

    /// How many connections there were.
    pub fn connections_seen(&self) -> u64 {
        self.seen
    }

    /// Of all callers.
    pub fn total(&self) -> Counted<CallerTally> {
        let mut total = Counted::<CallerTally>::default();
        for caller in self.callers.values() {
            total.before += caller.before;
            total.tally.allocated += caller.tally.allocated;
            total.tally.freed += caller.tally.freed;
            total.tally.bytes += caller.tally.bytes;
            total.tally.truesize += caller.tally.truesize;
            total.tally.truesize_freed += caller.tally.truesize_freed;
            total.tally.lifetime_ns += caller.tally.lifetime_ns;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use socklife_abi::skb::{CallerTally, ConnectionTally};

    use super::Skbs;

    fn caller(allocated: u64, freed: u64) -> CallerTally {
        CallerTally {
            allocated,
            freed,
            ..CallerTally::default()
        }
    }

    fn connection(sent: u64, freed: u64, closed: u8) -> ConnectionTally {
        ConnectionTally {
            sent,
            freed,
            closed,
            ..ConnectionTally::zeroed()
        }
    }

    fn name(address: u64) -> String {
        if address < 10 { "first" } else { "second" }.to_owned()
    }

    #[test]
    fn places_of_one_function_are_one_caller() {
        let mut skbs = Skbs::default();
        skbs.take(&[(1, caller(3, 1)), (2, caller(4, 2)), (10, caller(5, 5))], &[], name);
        let callers: Vec<_> = skbs
            .callers()
            .map(|(name, caller)| (name.to_owned(), caller.tally.allocated, caller.tally.alive()))
            .collect();
        assert_eq!(callers, [("first".to_owned(), 7, 4), ("second".to_owned(), 5, 0)]);
        assert_eq!((skbs.total().tally.allocated, skbs.total().tally.alive()), (12, 4));
        skbs.next_interval();
        skbs.take(&[(1, caller(5, 5)), (2, caller(4, 2)), (10, caller(5, 5))], &[], name);
        assert_eq!(skbs.total().in_interval(), 2);
    }

    #[test]
    fn a_connection_is_forgotten_when_it_is_closed_has_nothing_left_and_was_shown() {
        let mut skbs = Skbs::default();
        let all = [
            (1, connection(3, 1, 1)),
            (2, connection(3, 3, 0)),
            (3, connection(3, 3, 1)),
        ];
        skbs.take(&[], &all, name);
        assert_eq!(skbs.connections().count(), 3);
        assert!(skbs.connections().all(|connection| connection.in_interval() == 3));
        skbs.next_interval();
        assert_eq!((skbs.connections().count(), skbs.connections_seen()), (2, 3));
        assert!(skbs.connections().all(|connection| connection.in_interval() == 0));
    }
}
