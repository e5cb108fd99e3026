//! Dropped segments by reason and place.

mod json;
mod table;

use std::{cmp::Reverse, collections::HashMap};

pub use json::{FIELDS, json};
pub use table::Table;

use socklife_abi::{
    event::SENDING,
    table::{DropCount, DropPlace},
};

use crate::kernel::{
    reasons::{self, Reason},
    symbols,
};

/// What was dropped in one place for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where the kernel gives one.
    pub reason: Option<Reason>,
    /// The function, or its address.
    pub location: String,
    /// On its way out.
    pub sending: bool,
    /// Since the start.
    pub total: DropCount,
    /// Segments in the interval.
    pub in_interval: u64,
}

/// The counts of the interval before, and of now.
#[derive(Debug, Default)]
pub struct Drops {
    before: HashMap<DropPlace, u64>,
    now: Vec<(DropPlace, DropCount)>,
}

impl Drops {
    /// Takes the kernel side's counts.
    pub fn take(&mut self, counts: Vec<(DropPlace, DropCount)>) {
        self.now = counts;
    }

    /// The next interval begins.
    pub fn next_interval(&mut self) {
        self.before = self.now.iter().map(|(place, count)| (*place, count.segments)).collect();
    }

    /// What was dropped most comes first. Places in one function are one row.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (place, count) in &self.now {
            let before = self.before.get(place).copied().unwrap_or(0);
            let row = Row {
                reason: reasons::of_drop(place.reason),
                location: symbols::shown(place.location).unwrap_or_default().into_owned(),
                sending: place.flags & u32::from(SENDING) != 0,
                total: *count,
                in_interval: count.segments.saturating_sub(before),
            };
            match rows.iter_mut().find(|known| known.is_like(&row)) {
                Some(known) => known.add(&row),
                None => rows.push(row),
            }
        }
        rows.sort_by_key(|row| {
            (
                Reverse(row.total.segments),
                row.reason.as_ref().map(|reason| reason.name.clone()),
                row.location.clone(),
            )
        });
        rows
    }
}

impl Row {
    fn is_like(&self, other: &Self) -> bool {
        (&self.reason, &self.location, self.sending) == (&other.reason, &other.location, other.sending)
    }

    fn add(&mut self, other: &Self) {
        self.total.segments += other.total.segments;
        self.total.bytes += other.total.bytes;
        self.in_interval += other.in_interval;
    }

    fn direction(&self) -> &'static str {
        if self.sending { "out" } else { "in" }
    }
}

#[cfg(test)]
mod tests {
    use super::{DropCount, DropPlace, Drops};
    use socklife_abi::event::NO_REASON;

    #[test]
    fn what_was_dropped_most_comes_first() {
        let place = |location| DropPlace {
            location,
            reason: NO_REASON,
            flags: 0,
        };
        let count = |segments| DropCount {
            segments,
            bytes: 10 * segments,
        };
        let mut drops = Drops::default();
        drops.take(vec![(place(1), count(3)), (place(2), count(5))]);
        let seen = |drops: &Drops| {
            let rows = drops.rows().into_iter();
            rows.map(|row| (row.location, row.total.segments, row.in_interval))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(&drops), [("0x2".to_owned(), 5, 5), ("0x1".to_owned(), 3, 3)]);
        drops.next_interval();
        drops.take(vec![(place(1), count(10)), (place(2), count(5))]);
        assert_eq!(seen(&drops), [("0x1".to_owned(), 10, 7), ("0x2".to_owned(), 5, 0)]);
    }
}
