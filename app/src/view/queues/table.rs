//! Listeners as aligned columns.

use std::{
    fmt::{self, Write as _},
    iter::zip,
};

use socklife_abi::event::{Total, UNKNOWN_DEPTH, accept_failure, ending, refusal};

use super::row::{Row, Wait};
use crate::{
    model::{Summary, figures},
    output::{Columns, Comm, Title, millis},
};

const COLUMNS: usize = 16;

const TITLES: [Title; COLUMNS] = [
    ("LADDR", false),
    ("LPORT", true),
    ("PID", true),
    ("COMM", false),
    ("DEPTH", true),
    ("SYN/s", true),
    ("P50", true),
    ("P99", true),
    ("MAX", true),
    ("DEPTH", true),
    ("ACC/s", true),
    ("P50", true),
    ("P99", true),
    ("MAX", true),
    ("OLDEST", true),
    ("REFUSED", true),
];

/// What stands above these columns.
const GROUPS: [(&str, usize, usize); 2] = [("SYN queue, ms", 4, 9), ("accept queue, ms", 9, 15)];

/// Acceptors that are named.
const NAMED: usize = 3;

/// Listeners as lines.
pub struct Table {
    columns: Columns<COLUMNS>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            columns: Columns::new(TITLES),
        }
    }
}

impl Table {
    /// The two lines of titles, and then a line for each row.
    pub fn lines(&mut self, rows: &[Row<'_>]) -> Result<Vec<String>, fmt::Error> {
        let cells: Vec<_> = rows.iter().map(cells).collect();
        for cells in &cells {
            self.columns.fit(cells);
        }
        let mut lines = vec![self.columns.groups(&GROUPS), self.columns.titles("NOTES")];
        let netns = |row: &Row<'_>| row.listener.netns;
        let several = rows.iter().any(|row| netns(row) != netns(&rows[0]));
        for (row, cells) in zip(rows, &cells) {
            lines.push(self.columns.line(cells, &notes(row, several)?));
        }
        Ok(lines)
    }
}

fn cells(row: &Row<'_>) -> [String; COLUMNS] {
    let queues = &row.listener.queues;
    let recent = row.recent.as_ref();
    let rate = |count: Option<u64>| match (count, recent) {
        (Some(count), Some(recent)) => per_second(count, recent.interval_ns),
        _ => "-".to_owned(),
    };
    let [half_50, half_99, half_max] = waits(row.listener.half_open.recent());
    // Whoever left unseen waited too.
    let unseen = recent.is_some_and(|recent| recent.unseen > 0);
    let [accept_50, accept_99, accept_max] = match row.listener.accept.recent() {
        None if unseen => ["?", "?", "?"].map(ToOwned::to_owned),
        summary => waits(summary),
    };
    [
        row.address().map_or_else(unknown, |address| address.to_string()),
        row.listener.port.to_string(),
        row.owner.map_or_else(unknown, |(process, _)| process.pid.to_string()),
        row.owner.map_or_else(unknown, |(process, more)| match more {
            0 => Comm(process.comm).to_string(),
            more => format!("{}+{more}", Comm(process.comm)),
        }),
        fill(queues.syn_queue, queues.syn_queue_limit),
        rate(recent.map(|recent| recent.syns)),
        half_50,
        half_99,
        half_max,
        fill(queues.accept_queue, queues.accept_queue_limit),
        rate(recent.map(|recent| recent.accepts + recent.unseen)),
        accept_50,
        accept_99,
        accept_max,
        match row.oldest {
            Wait::None => "-".to_owned(),
            Wait::For(ns) => millis(ns),
            Wait::Unknown => unknown(),
        },
        recent.map_or_else(|| "-".to_owned(), |recent| recent.refused.to_string()),
    ]
}

fn unknown() -> String {
    "?".to_owned()
}

/// `depth/limit`
fn fill(depth: u32, limit: u32) -> String {
    let part = |value: u32| match value {
        UNKNOWN_DEPTH => unknown(),
        value => value.to_string(),
    };
    format!("{}/{}", part(depth), part(limit))
}

fn waits(summary: Option<Summary>) -> [String; 3] {
    match summary {
        Some(summary) => [summary.p50, summary.p99, summary.max].map(millis),
        None => ["-", "-", "-"].map(ToOwned::to_owned),
    }
}

fn per_second(count: u64, interval_ns: u64) -> String {
    let tenths = u128::from(count) * 10_000_000_000 / u128::from(interval_ns.max(1));
    if tenths < 1000 && tenths % 10 != 0 {
        format!("{}.{}", tenths / 10, tenths % 10)
    } else {
        (tenths / 10).to_string()
    }
}

/// What is not in every row, since the start of the trace.
fn notes(row: &Row<'_>, with_netns: bool) -> Result<String, fmt::Error> {
    let listener = row.listener;
    let totals = listener.totals();
    let of = |total: Total| totals[total as usize];
    let mut notes = Notes(String::new());
    if with_netns {
        notes.add(format_args!("netns {}", listener.netns))?;
    }
    if listener.closed {
        notes.add(format_args!("closed"))?;
    }
    if listener.group {
        notes.add(format_args!("which listener is unknown"))?;
    }
    let refused = zip(refusal::NAMES, figures::refused_syns(&totals).iter().copied());
    notes.causes("refused", refused.chain([("accept_refused", of(Total::AcceptRefused))]))?;
    let failed = zip(accept_failure::NAMES, figures::failed_accepts(&totals).iter().copied());
    notes.causes("accept() failed", failed)?;
    if let Some((asked, backlog)) = listener.clamped() {
        notes.add(format_args!("backlog {backlog} (asked {asked}: net.core.somaxconn)"))?;
    }
    let limit = listener.queues.syn_queue_limit;
    if limit != UNKNOWN_DEPTH && listener.backlog().is_some_and(|backlog| limit < backlog) {
        notes.add(format_args!("SYN queue {limit} (net.ipv4.tcp_max_syn_backlog)"))?;
    }
    notes.causes("ended", zip(ending::NAMES, figures::ended(&totals).iter().copied()))?;
    if of(Total::NeverAccepted) > 0 {
        notes.add(format_args!("{} never accepted", of(Total::NeverAccepted)))?;
    }
    if of(Total::DeadInQueue) > 0 {
        notes.add(format_args!("{} dead while they waited", of(Total::DeadInQueue)))?;
    }
    if of(Total::AcceptDeferred) > 0 {
        notes.add(format_args!("{} accepts deferred", of(Total::AcceptDeferred)))?;
    }
    if listener.unseen_accepts() > 0 {
        notes.add(format_args!(
            "{} accepts were not seen: io_uring?",
            listener.unseen_accepts()
        ))?;
    }
    match listener.fastopen {
        (_, 0) => {}
        (UNKNOWN_DEPTH, limit) => notes.add(format_args!("Fast Open ?/{limit}"))?,
        (depth, limit) => notes.add(format_args!("Fast Open {depth}/{limit}"))?,
    }
    if of(Total::FastopenRefused) > 0 {
        notes.add(format_args!(
            "{} without Fast Open: its queue is full",
            of(Total::FastopenRefused)
        ))?;
    }
    let cookies = [
        ("sent", of(Total::CookieSent)),
        ("accepted", of(Total::CookieAccepted)),
        ("rejected", of(Total::CookieRejected)),
    ];
    notes.causes("cookies", cookies.into_iter())?;
    let (acceptors, total) = (listener.acceptors.ranked(), listener.acceptors.total());
    if acceptors.len() > 1 {
        let shares: Vec<_> = acceptors
            .iter()
            .take(NAMED)
            .map(|acceptor| {
                let share = u128::from(acceptor.accepted) * 100 / u128::from(total.max(1));
                format!("{}[{}] {share}%", Comm(acceptor.process.comm), acceptor.process.pid)
            })
            .collect();
        let more = acceptors.len().saturating_sub(NAMED);
        let rest = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        notes.add(format_args!("accepted by {}{rest}", shares.join(", ")))?;
    }
    Ok(notes.0)
}

/// Remarks, one after the other.
struct Notes(String);

impl Notes {
    fn add(&mut self, remark: fmt::Arguments<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            self.0.push_str("; ");
        }
        self.0.write_fmt(remark)
    }

    /// Those that are not zero.
    fn causes(&mut self, what: &str, causes: impl Iterator<Item = (&'static str, u64)>) -> fmt::Result {
        let causes: Vec<_> = causes
            .filter(|(_, count)| *count > 0)
            .map(|(cause, count)| format!("{cause} {count}"))
            .collect();
        if causes.is_empty() {
            return Ok(());
        }
        self.add(format_args!("{what}: {}", causes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::per_second;

    #[test]
    fn rates_are_per_second() {
        const SECOND: u64 = 1_000_000_000;
        assert_eq!(per_second(0, SECOND), "0");
        assert_eq!(per_second(7, SECOND), "7");
        assert_eq!(per_second(1, 2 * SECOND), "0.5");
        assert_eq!(per_second(999, 10 * SECOND), "99.9");
        assert_eq!(per_second(1009, 10 * SECOND), "100");
        assert_eq!(per_second(3, SECOND / 2), "6");
        assert_eq!(per_second(u64::MAX, 0), "18446744073709551615000000000");
    }
}
