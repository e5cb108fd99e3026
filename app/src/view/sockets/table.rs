//! Sockets as aligned columns.

use std::iter::zip;

use super::row::Row;
use crate::{
    event::names,
    output::{Columns, Comm, Title},
};

const COLUMNS: usize = 14;

/// The first three are those of `ss`.
const TITLES: [Title; COLUMNS] = [
    ("STATE", false),
    ("RECV-Q", true),
    ("SEND-Q", true),
    ("SYN-Q", true),
    ("LADDR", false),
    ("LPORT", true),
    ("RADDR", false),
    ("RPORT", true),
    ("NETNS", true),
    ("UID", true),
    ("INODE", true),
    ("COOKIE", true),
    ("TIMER", false),
    ("IDLE", true),
];

/// The titles, and a line for each row.
pub fn lines(rows: &[Row<'_>]) -> Vec<String> {
    let mut columns = Columns::new(TITLES);
    let cells: Vec<_> = rows.iter().map(cells).collect();
    for cells in &cells {
        columns.fit(cells);
    }
    let lines = zip(rows, &cells).map(|(row, cells)| columns.line(cells, &holders(row)));
    std::iter::once(columns.titles("HOLDERS")).chain(lines).collect()
}

fn cells(row: &Row<'_>) -> [String; COLUMNS] {
    let socket = row.socket;
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let known = |number: u64| or_none((number != 0).then(|| number.to_string()));
    let peer = row.raddr();
    [
        names::state(socket.state.into()).to_owned(),
        socket.recv_q.to_string(),
        socket.send_q.to_string(),
        or_none(
            row.listens()
                .then(|| format!("{}/{}", socket.syn_queue, socket.syn_queue_limit)),
        ),
        row.laddr().to_string(),
        socket.sport.to_string(),
        or_none(peer.map(|address| address.to_string())),
        or_none(peer.map(|_| socket.dport.to_string())),
        socket.netns.to_string(),
        or_none(row.uid().map(|uid| uid.to_string())),
        known(socket.inode),
        known(socket.cookie),
        or_none(row.timer().map(str::to_owned)),
        or_none(row.idle().map(|idle| format!("{:.1}s", idle.as_secs_f64()))),
    ]
}

/// `serve[41] fd 3, serve[57] fd 3`
pub fn holders(row: &Row<'_>) -> String {
    if row.in_accept_queue() {
        return "(in the accept queue)".to_owned();
    }
    let holders = row.holders.iter().map(|holder| {
        let process = holder.process;
        format!("{}[{}] fd {}", Comm(process.comm), process.pid, holder.fd)
    });
    let all = holders.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "-".to_owned() } else { all }
}
