//! Sockets with their queues as aligned columns.

use std::iter::zip;

use socklife_abi::queued::{SkbQueue, cut};

use super::{queues::Queues, row::Row, table::holders};
use crate::{
    event::names,
    model::dwell::Wait,
    output::{Columns, Title, millis},
};

const COLUMNS: usize = 17;
/// With how long data waits.
const WITH_WAITS: usize = COLUMNS + 3;

/// Each column, and whether it tells how long data waits.
const TITLES: [(Title, bool); WITH_WAITS] = [
    (("STATE", false), false),
    (("LADDR", false), false),
    (("LPORT", true), false),
    (("RADDR", false), false),
    (("RPORT", true), false),
    (("RECV-Q", true), false),
    (("WAIT", true), true),
    (("SKBS", true), false),
    (("OOO", true), false),
    (("BACKLOG", true), false),
    (("RMEM/RCVBUF", true), false),
    (("SEND-Q", true), false),
    (("UNSENT", true), false),
    (("WAIT", true), true),
    (("SKBS", true), false),
    (("FLIGHT", true), false),
    (("WAIT", true), true),
    (("SKBS", true), false),
    (("AGE", true), false),
    (("WMEM/SNDBUF", true), false),
];

/// What stands above the columns with these titles, up to another.
const GROUPS: [(&str, &str, &str); 2] = [("receive", "RECV-Q", "SEND-Q"), ("send", "SEND-Q", "")];

/// Sockets as lines.
pub enum QueuesTable {
    /// As they are now.
    Once(Box<Columns<COLUMNS>>),
    /// With how long data waits.
    Waits(Box<Columns<WITH_WAITS>>),
}

impl QueuesTable {
    /// With the waits of an interval, or without.
    pub fn new(waits: bool) -> Self {
        if waits {
            Self::Waits(Box::new(Columns::new(TITLES.map(|(title, _)| title))))
        } else {
            Self::Once(Box::new(Columns::new(without_waits(TITLES.map(|(title, _)| title)))))
        }
    }

    /// Two lines of titles, and a line for each row.
    pub fn lines(&mut self, rows: &[Row<'_>]) -> Vec<String> {
        let cells = rows.iter().map(cells);
        match self {
            Self::Once(columns) => aligned(columns, rows, &cells.map(without_waits).collect::<Vec<_>>()),
            Self::Waits(columns) => aligned(columns, rows, &cells.collect::<Vec<_>>()),
        }
    }
}

fn aligned<const N: usize>(columns: &mut Columns<N>, rows: &[Row<'_>], cells: &[[String; N]]) -> Vec<String> {
    for cells in cells {
        columns.fit(cells);
    }
    let titles = columns.titles("");
    let place = |title: &str| {
        let words = titles.split_whitespace();
        words.take_while(|word| title.is_empty() || *word != title).count()
    };
    let groups = GROUPS.map(|(name, from, to)| (name, place(from), place(to)));
    let netns = |row: &Row<'_>| row.socket.netns;
    let several = rows.iter().any(|row| netns(row) != netns(&rows[0]));
    let lines = zip(rows, cells).map(|(row, cells)| columns.line(cells, &rest(row, several)));
    [columns.groups(&groups), columns.titles("HOLDERS; NOTES")]
        .into_iter()
        .chain(lines)
        .collect()
}

/// The same without the columns of waits.
fn without_waits<T: Clone>(all: [T; WITH_WAITS]) -> [T; COLUMNS] {
    let places: Vec<_> = (0..WITH_WAITS).filter(|index| !TITLES[*index].1).collect();
    std::array::from_fn(|index| all[places[index]].clone())
}

fn cells(row: &Row<'_>) -> [String; WITH_WAITS] {
    let socket = row.socket;
    let none = || "-".to_owned();
    let peer = row.raddr();
    let of = |tell: fn(&Queues) -> String| row.queues.map_or_else(none, tell);
    let wait = |which: fn(&Queues) -> Option<Wait>| row.queues.and_then(which).map_or_else(none, waited);
    [
        names::state(socket.state.into()).to_owned(),
        row.laddr().to_string(),
        socket.sport.to_string(),
        peer.map_or_else(none, |address| address.to_string()),
        peer.map_or_else(none, |_| socket.dport.to_string()),
        socket.recv_q.to_string(),
        wait(|queues| Some(queues.dwell?.receive)),
        of(|queues| skbs(&queues.queued().receive)),
        of(|queues| skbs(&queues.queued().out_of_order)),
        of(|queues| skbs(&queues.queued().backlog)),
        of(|queues| {
            let memory = queues.queued().memory;
            format!("{}/{}", memory.rmem_alloc, memory.rcvbuf)
        }),
        socket.send_q.to_string(),
        of(|queues| queues.unsent().to_string()),
        wait(|queues| Some(queues.dwell?.unsent)),
        of(|queues| skbs(&queues.queued().write)),
        of(|queues| queues.in_flight().to_string()),
        wait(|queues| Some(queues.dwell?.in_flight)),
        of(|queues| skbs(&queues.queued().retransmit)),
        of(|queues| {
            let age = queues.sent_ns(&queues.queued().retransmit);
            age.map_or_else(|| "-".to_owned(), millis)
        }),
        of(|queues| {
            let memory = queues.queued().memory;
            format!("{}/{}", memory.wmem_queued, memory.sndbuf)
        }),
    ]
}

/// `3`, or `256+`
fn skbs(queue: &SkbQueue) -> String {
    let more = if queue.cut == cut::UNCOUNTED { "+" } else { "" };
    format!("{}{more}", queue.skbs)
}

/// In milliseconds; `>` where nothing left.
fn waited(wait: Wait) -> String {
    match (wait.mean_ns, wait.stalled_ns) {
        (Some(mean_ns), _) => millis(mean_ns),
        (None, Some(stalled_ns)) => format!(">{}", millis(stalled_ns)),
        (None, None) => "-".to_owned(),
    }
}

/// Who holds it, and what is the matter with it.
fn rest(row: &Row<'_>, with_netns: bool) -> String {
    let netns = with_netns.then(|| format!("netns {}", row.socket.netns));
    let notes = row.queues.map(notes).unwrap_or_default();
    let parts = std::iter::once(holders(row)).chain(netns).chain(notes);
    parts.collect::<Vec<_>>().join("; ")
}

fn notes(queues: &Queues) -> Vec<String> {
    let (queued, mut notes) = (queues.queued(), Vec::new());
    if queued.out_of_order.skbs > 0 {
        notes.push("a segment is missing".to_owned());
    }
    if queues.is_closed() {
        notes.push("its window is closed: nobody reads".to_owned());
    }
    if queues.is_connecting() {
        notes.push("its SYN is not answered".to_owned());
    } else if queues.peer_is_closed() {
        notes.push("the peer's window is closed: nobody reads there".to_owned());
    } else if queues.limited_by() == Some("rwnd") {
        notes.push("held up by the peer's window".to_owned());
    }
    if queues.limited_by() == Some("sndbuf") {
        notes.push("held up by its send buffer".to_owned());
    }
    if let Some(dwell) = &queues.dwell {
        let [_, rwnd, sndbuf] = dwell.chrono_ms;
        for (ms, what) in [(rwnd, "the peer's window"), (sndbuf, "its send buffer")] {
            if ms > 0 {
                let span_ms = dwell.span_ns / 1_000_000;
                // The kernel counts in its own ticks.
                let ms = u64::from(ms).min(span_ms);
                notes.push(format!("waited {ms} of {span_ms} ms for {what}"));
            }
        }
    }
    if queued.memory.drops > 0 {
        notes.push(format!("{} dropped", queued.memory.drops));
    }
    notes
}
