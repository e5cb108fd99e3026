//! As one JSON object. A number that does not fit into 64 bits is the largest that does.

use serde_json::{Map, Value, json as value};

use crate::{
    capacity::{
        Report, Serving,
        limits::{self, Allows, Limit, Unit},
        reading::Reading,
    },
    output::{Comm, Line},
};

/// Appends the line.
pub fn json(report: &Report, line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut fields = Map::new();
    put(&mut fields, "model", report.model.name());
    if let Some((first, count)) = limits::first(&report.limits) {
        let mut binds = Map::new();
        put(&mut binds, "limit", first.id);
        put(&mut binds, "connections", integer(count));
        whose(&mut binds, report, first);
        put(&mut binds, "remedy", first.remedy.as_str());
        put(&mut fields, "binds_first", binds);
    }
    let limits: Vec<_> = report.limits.iter().map(|limit| of_limit(report, limit)).collect();
    put(&mut fields, "limits", limits);
    put(&mut fields, "memory", memory(report));
    let listeners: Vec<_> = report.listeners.iter().map(serving).collect();
    put(&mut fields, "listeners", listeners);
    let host = &report.host;
    let mut bursts = Map::new();
    known(&mut bursts, "somaxconn", &host.somaxconn);
    known(&mut bursts, "max_syn_backlog", &host.max_syn_backlog);
    known(&mut bursts, "syncookies", &host.syncookies);
    put(&mut fields, "bursts", bursts);
    if let Some(buffers) = host.buffers.known() {
        let buffers = value!({
            "tcp_mem_max_bytes": buffers.max_pages.saturating_mul(buffers.page),
            "tcp_mem_used_bytes": buffers.used_pages.saturating_mul(buffers.page),
            "tcp_rmem_min": buffers.rmem_min,
            "tcp_wmem_min": buffers.wmem_min,
        });
        put(&mut fields, "buffers", buffers);
    }
    if let Some(ports) = host.ports.known() {
        let outgoing = value!({
            "first_port": ports.first,
            "last_port": ports.last,
            "reserved_ports": ports.reserved,
            "connections_per_destination": ports.count(),
        });
        put(&mut fields, "outgoing", outgoing);
    }
    line.write("capacity", &fields, out)
}

fn put(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    map.insert(name.to_owned(), value.into());
}

fn known(map: &mut Map<String, Value>, name: &str, reading: &Reading<u64>) {
    if let Some(value) = reading.known() {
        put(map, name, *value);
    }
}

fn integer(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn of_limit(report: &Report, limit: &Limit) -> Value {
    let mut map = Map::new();
    put(&mut map, "limit", limit.id);
    whose(&mut map, report, limit);
    match &limit.allows {
        Allows::Connections(count) => put(&mut map, "connections", integer(*count)),
        Allows::Any => put(&mut map, "any", true),
        Allows::Unknown(reason) => put(&mut map, "unknown", reason.as_str()),
    }
    let bytes = limit.unit == Unit::Bytes;
    let names = if bytes {
        ["value_bytes", "used_bytes", "each_bytes"]
    } else {
        ["value", "used", "each"]
    };
    let values = [limit.value.map(integer), limit.used, limit.each];
    for (name, value) in names.into_iter().zip(values) {
        if let Some(value) = value {
            put(&mut map, name, value);
        }
    }
    put(&mut map, "where", limit.at.as_str());
    map.into()
}

/// The process or the listener of a limit.
fn whose(map: &mut Map<String, Value>, report: &Report, limit: &Limit) {
    if let Some(process) = limit.process.and_then(|index| report.processes.get(index))
        && !process.own
    {
        put(map, "pid", process.pid);
        put(map, "comm", Comm(process.comm).to_string());
    }
    if let Some(address) = limit.listener {
        put(map, "laddr", address.ip().to_string());
        put(map, "lport", address.port());
    }
}

fn memory(report: &Report) -> Map<String, Value> {
    let mut map = Map::new();
    let memory = &report.memory;
    known(&mut map, "socket_bytes", &memory.socket);
    if memory.socket.known().is_some() {
        put(&mut map, "socket_where", memory.socket.at.as_str());
    }
    if let Some(reading) = &memory.task
        && let Some(task) = reading.known()
    {
        put(&mut map, "task_bytes", task.bytes);
        put(&mut map, "task_where", reading.at.as_str());
    }
    map
}

fn serving(serving: &Serving) -> Value {
    let mut map = Map::new();
    let listener = &serving.listener;
    put(&mut map, "family", if listener.address.is_ipv4() { 4 } else { 6 });
    put(&mut map, "laddr", listener.address.ip().to_string());
    put(&mut map, "lport", listener.address.port());
    put(&mut map, "connections", listener.connections);
    put(&mut map, "accept_queue", listener.accept_queue);
    if let Some(limit) = listener.accept_queue_limit {
        put(&mut map, "accept_queue_limit", limit);
    }
    if let Some(process) = &serving.process {
        put(&mut map, "pid", process.pid);
        put(&mut map, "comm", Comm(process.comm).to_string());
        if serving.more_holders > 0 {
            put(&mut map, "more_holders", serving.more_holders);
        }
        known(&mut map, "descriptors", &process.descriptors);
        if let Some(limit) = process.nofile.known() {
            put(&mut map, "rlimit_nofile_soft", limit.soft);
            put(&mut map, "rlimit_nofile_hard", limit.hard);
        }
    }
    map.into()
}
