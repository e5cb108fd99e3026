//! Two tables: callers, and connections.

use socklife_abi::skb::{CallerTally, ConnectionTally};

use super::{Block, mean};
use crate::{
    event::address,
    model::skbs::Counted,
    output::{Columns, Title},
};

const CALLER: usize = 9;
const CALLER_TITLES: [Title; CALLER] = [
    ("CALLER", false),
    ("ALLOC/s", true),
    ("ALLOCS", true),
    ("FREES", true),
    ("ALIVE", true),
    ("BYTES", true),
    ("TRUESIZE", true),
    ("HELD", true),
    ("LIFE ms", true),
];

const CONNECTION: usize = 12;
const CONNECTION_TITLES: [Title; CONNECTION] = [
    ("LADDR", false),
    ("LPORT", true),
    ("RADDR", false),
    ("RPORT", true),
    ("SENT", true),
    ("RECEIVED", true),
    ("ARRIVED", true),
    ("PASSED", true),
    ("FREES", true),
    ("ALIVE", true),
    ("TRUESIZE", true),
    ("LIFE ms", true),
];

/// As wide as what was shown so far.
pub struct Table {
    callers: Columns<CALLER>,
    connections: Columns<CONNECTION>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            callers: Columns::new(CALLER_TITLES),
            connections: Columns::new(CONNECTION_TITLES),
        }
    }
}

impl Table {
    /// At most so many of each, and the total.
    pub fn lines(&mut self, block: &Block<'_>, most: usize) -> Vec<String> {
        let mut rows: Vec<_> = block
            .callers
            .iter()
            .take(most)
            .map(|(name, counted)| caller(name, counted, block))
            .collect();
        rows.push(caller("total", &block.total, block));
        rows.iter().for_each(|cells| self.callers.fit(cells));
        let mut lines = vec![self.callers.titles("")];
        lines.extend(rows.iter().map(|cells| self.callers.line(cells, "")));
        more(block.callers.len(), most, "callers", &mut lines);
        let rows: Vec<_> = block.connections.iter().take(most).collect();
        if rows.is_empty() {
            return lines;
        }
        let cells: Vec<_> = rows.iter().map(|counted| connection(&counted.tally)).collect();
        cells.iter().for_each(|cells| self.connections.fit(cells));
        lines.push(self.connections.titles("NOTES"));
        for (counted, cells) in rows.iter().zip(&cells) {
            lines.push(self.connections.line(cells, &notes(&counted.tally)));
        }
        more(block.connections.len(), most, "connections", &mut lines);
        lines
    }
}

fn more(all: usize, most: usize, what: &str, lines: &mut Vec<String>) {
    if all > most {
        lines.push(format!("… {} more {what}", all - most));
    }
}

fn caller(name: &str, counted: &Counted<CallerTally>, block: &Block<'_>) -> [String; CALLER] {
    let tally = &counted.tally;
    let rate = block.interval_ns.filter(|ns| *ns > 0).map(|ns| {
        let rate = u128::from(counted.in_interval()) * 1_000_000_000 / u128::from(ns);
        rate.to_string()
    });
    [
        name.to_owned(),
        known(rate),
        tally.allocated.to_string(),
        tally.freed.to_string(),
        tally.alive().to_string(),
        known((!block.pairs).then(|| tally.bytes.to_string())),
        tally.truesize.to_string(),
        tally.truesize.saturating_sub(tally.truesize_freed).to_string(),
        millis(mean(tally.lifetime_ns, tally.freed)),
    ]
}

fn connection(tally: &ConnectionTally) -> [String; CONNECTION] {
    let peer = tally.dport != 0;
    [
        address(tally.saddr, tally.family).to_string(),
        tally.sport.to_string(),
        known(peer.then(|| address(tally.daddr, tally.family).to_string())),
        known(peer.then(|| tally.dport.to_string())),
        tally.sent.to_string(),
        tally.received.to_string(),
        tally.arrived.to_string(),
        tally.passed.to_string(),
        tally.freed.to_string(),
        tally.alive().to_string(),
        tally.truesize.to_string(),
        millis(mean(tally.lifetime_ns, tally.freed)),
    ]
}

fn notes(tally: &ConnectionTally) -> String {
    let closed = if tally.closed == 0 { "" } else { "closed, " };
    format!("{closed}netns {}", tally.netns)
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

fn millis(ns: Option<u64>) -> String {
    known(ns.map(|ns| format!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000)))
}
