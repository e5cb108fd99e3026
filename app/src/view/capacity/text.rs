//! As a table with what follows from it, and what limits other things than the total.

use std::fmt::{self, Write as _};

use super::{
    name,
    number::{Bytes, Count},
};
use crate::{
    capacity::{
        Model, Report, Serving,
        limits::{self, Allows, Limit, Unit, room},
        reading::Reading,
    },
    output::{Comm, Grouped},
};

/// Listeners that are listed where none was asked for.
const LISTED: usize = 20;

/// The whole answer.
pub fn text(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    head(&mut out, report)?;
    table(&mut out, report)?;
    verdict(&mut out, report)?;
    listeners(&mut out, report)?;
    bursts(&mut out, report)?;
    buffers(&mut out, report)?;
    outgoing(&mut out, report)?;
    Ok(out)
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let what = match report.model {
        Model::Fork => "a process",
        Model::Thread => "a thread",
        Model::Event => "no task of its own",
    };
    writeln!(out, "Each connection has {what} (--model {}).", report.model.name())?;
    let socket = &report.memory.socket;
    match &socket.value {
        Ok(bytes) => writeln!(
            out,
            "Its socket takes {} bytes while idle ({}).",
            Grouped(*bytes),
            socket.at
        )?,
        Err(reason) => writeln!(out, "What its socket takes is unknown: {reason}.")?,
    }
    if let Some(task) = &report.memory.task {
        match &task.value {
            Ok(task_is) => writeln!(
                out,
                "An idle task takes {} more, at least ({}).",
                Bytes(task_is.bytes.into()),
                task.at
            )?,
            Err(reason) => writeln!(out, "What a task takes is unknown: {reason}.")?,
        }
    }
    Ok(())
}

const TITLES: [&str; 5] = ["  LIMIT", "CONNECTIONS", "VALUE", "USED", "WHERE"];

fn table(out: &mut String, report: &Report) -> fmt::Result {
    let first = limits::first(&report.limits).map(|(limit, _)| limit);
    let rows: Vec<_> = report
        .limits
        .iter()
        .map(|limit| {
            let mark = if first.is_some_and(|first| std::ptr::eq(first, limit)) {
                "→"
            } else {
                " "
            };
            row(report, limit, mark)
        })
        .collect();
    let mut widths = TITLES.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let [limit, connections, value, used, _] = widths;
    out.push('\n');
    for row in std::iter::once(&TITLES.map(str::to_owned)).chain(&rows) {
        let [a, b, c, d, e] = row;
        writeln!(out, "{a:<limit$} {b:>connections$} {c:>value$} {d:>used$} {e}")?;
    }
    Ok(())
}

fn row(report: &Report, limit: &Limit, mark: &str) -> [String; 5] {
    let amount = |amount: Option<u128>| match (amount, limit.unit) {
        (None, _) => "-".to_owned(),
        (Some(bytes), Unit::Bytes) => Bytes(bytes).to_string(),
        (Some(count), _) => Count(count).to_string(),
    };
    let (connections, at) = match &limit.allows {
        Allows::Connections(count) => (Count(*count).to_string(), limit.at.clone()),
        Allows::Any => ("any".to_owned(), limit.at.clone()),
        Allows::Unknown(reason) => ("?".to_owned(), format!("{} ({reason})", limit.at)),
    };
    [
        format!("{mark} {}", name(report, limit)),
        connections,
        amount(limit.value),
        amount(limit.used.map(u128::from)),
        at,
    ]
}

fn verdict(out: &mut String, report: &Report) -> fmt::Result {
    out.push('\n');
    match limits::first(&report.limits) {
        Some((limit, count)) => writeln!(
            out,
            "At {} connections {} binds first; raise it with {}.",
            Count(count),
            name(report, limit),
            limit.remedy
        )?,
        None => writeln!(out, "Which limit binds first is unknown: none could be read.")?,
    }
    let unknown = report
        .limits
        .iter()
        .filter(|limit| matches!(limit.allows, Allows::Unknown(_)))
        .count();
    match unknown {
        0 => Ok(()),
        1 => writeln!(out, "One limit could not be read (?), and may bind earlier."),
        _ => writeln!(
            out,
            "{unknown} limits could not be read (?), and one of them may bind earlier."
        ),
    }
}

fn listeners(out: &mut String, report: &Report) -> fmt::Result {
    if report.listeners.is_empty() {
        let what = if report.asked {
            "Nobody listens there yet"
        } else {
            "No listener in this network namespace"
        };
        return writeln!(out, "\n{what}.");
    }
    let title = if report.asked {
        "Listeners"
    } else {
        "Listeners of this network namespace (--listen computes for one)"
    };
    writeln!(out, "\n{title}")?;
    let rows: Vec<_> = report.listeners.iter().take(LISTED).map(serving).collect();
    let titles = ["LISTENER", "PROCESS", "CONNECTIONS", "ACCEPT QUEUE", "DESCRIPTORS"];
    let mut widths = titles.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let [address, process, connections, queue, descriptors] = widths;
    for row in std::iter::once(&titles.map(str::to_owned)).chain(&rows) {
        let [a, b, c, d, e] = row;
        writeln!(
            out,
            "  {a:<address$} {b:<process$} {c:>connections$} {d:>queue$} {e:>descriptors$}"
        )?;
    }
    match report.listeners.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more (-o json has all)"),
    }
}

fn serving(serving: &Serving) -> [String; 5] {
    let listener = &serving.listener;
    let unknown = || "?".to_owned();
    let number = |number: Option<u64>| number.map_or_else(unknown, |number| Grouped(number).to_string());
    let process = serving.process.as_ref();
    [
        listener.address.to_string(),
        process.map_or_else(unknown, |process| {
            let more = match serving.more_holders {
                0 => String::new(),
                more => format!("+{more}"),
            };
            format!("{}[{}]{more}", Comm(process.comm), process.pid)
        }),
        Grouped(listener.connections).to_string(),
        format!(
            "{}/{}",
            Grouped(listener.accept_queue),
            number(listener.accept_queue_limit)
        ),
        process.map_or_else(unknown, |process| {
            let used = number(process.descriptors.known().copied());
            let limit = number(process.nofile.known().map(|limit| limit.soft));
            format!("{used}/{limit}")
        }),
    ]
}

fn bursts(out: &mut String, report: &Report) -> fmt::Result {
    let host = &report.host;
    writeln!(
        out,
        "\nBursts (what may wait at once at each listener; the total is another matter)"
    )?;
    write!(out, "  accept queue  ")?;
    known(out, &host.somaxconn, |out, limit| {
        write!(
            out,
            "up to {} connections wait for accept(2), if listen(2) asks for as many",
            Grouped(limit)
        )
    })?;
    write!(out, "  SYN queue     ")?;
    known(out, &host.max_syn_backlog, |out, limit| match host.syncookies.known() {
        Some(0) => write!(
            out,
            "as many handshakes as the backlog; from 3/4 of {} on only of known clients",
            Grouped(limit)
        ),
        _ => write!(
            out,
            "as many handshakes as the backlog, further ones by cookie (without cookies 3/4 of {})",
            Grouped(limit)
        ),
    })
}

/// The sentence about a number, or why there is none.
fn known<T: Copy>(
    out: &mut String,
    reading: &Reading<T>,
    tell: impl FnOnce(&mut String, T) -> fmt::Result,
) -> fmt::Result {
    match &reading.value {
        Ok(value) => tell(out, *value)?,
        Err(reason) => write!(out, "unknown: {reason}")?,
    }
    writeln!(out, " ({})", reading.at)
}

fn buffers(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "\nData under way (idle connections take none)")?;
    write!(out, "  ")?;
    known(out, &report.host.buffers, |out, buffers| {
        let least = buffers.rmem_min.saturating_add(buffers.wmem_min);
        let bytes = |pages: u64| u128::from(pages) * u128::from(buffers.page);
        let used = u64::try_from(bytes(buffers.used_pages)).unwrap_or(u64::MAX);
        write!(
            out,
            "{} connections that each have the least both ways ({} bytes of tcp_rmem, {} of tcp_wmem) fill {}; {} of it is taken",
            Count(room(bytes(buffers.max_pages), used, least, 0)),
            Grouped(buffers.rmem_min),
            Grouped(buffers.wmem_min),
            Bytes(bytes(buffers.max_pages)),
            Bytes(used.into())
        )
    })
}

fn outgoing(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "\nOutgoing (connect(2); not what a listener is limited by)")?;
    write!(out, "  ")?;
    known(out, &report.host.ports, |out, ports| {
        let reserved = match ports.reserved {
            0 => String::new(),
            reserved => format!(", {} of them reserved", Grouped(reserved)),
        };
        write!(
            out,
            "{} connections to each address and port from each local address: ports {} to {}{reserved}",
            Grouped(ports.count()),
            ports.first,
            ports.last
        )
    })
}
