//! The kernel side's tables of listeners, namespaces and half-open connections.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap as Table, MapData},
};
use bytemuck::{Zeroable as _, pod_read_unaligned};
use socklife_abi::{
    event::{Envelope, HalfOpenEnded, Kind, Listener, Queues, TOTALS, UNKNOWN, ending},
    program::Program,
    table::{DropCount, DropPlace, Request, RequestKey, Tally},
};

use crate::{
    clock::boot_ns,
    event::{Detail, Event},
};

/// The timer of a half-open connection fires at least that often (`TCP_RTO_MAX` is 120 s): one that was silent for
/// longer has none any more.
const SILENCE_S: u64 = 130;

/// The tables, as bytes: the types are the kernel side's.
pub struct Tables {
    listeners: Table<MapData, u64, [u8; size_of::<Tally>()]>,
    namespaces: Table<MapData, u32, [u8; 8 * TOTALS]>,
    requests: Table<MapData, [u8; size_of::<RequestKey>()], [u8; size_of::<Request>()]>,
    processes: Table<MapData, u32, u32>,
    drops: Table<MapData, [u8; size_of::<DropPlace>()], [u8; size_of::<DropCount>()]>,
}

impl Tables {
    /// Of a loaded object.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let (listeners, namespaces, requests) = (take("LISTENERS")?, take("NAMESPACES")?, take("REQUESTS")?);
        let (processes, drops) = (take("PROCESSES")?, take("DROPS")?);
        Ok(Self {
            listeners: Table::try_from(listeners).context("cannot use the map LISTENERS")?,
            namespaces: Table::try_from(namespaces).context("cannot use the map NAMESPACES")?,
            requests: Table::try_from(requests).context("cannot use the map REQUESTS")?,
            processes: Table::try_from(processes).context("cannot use the map PROCESSES")?,
            drops: Table::try_from(drops).context("cannot use the map DROPS")?,
        })
    }

    /// Each listener as an event.
    pub fn listeners(&self) -> Result<Vec<Event>> {
        let time_ns = boot_ns();
        let mut events = Vec::new();
        for entry in self.listeners.iter() {
            let (_, bytes) = entry.context("cannot read the table of listeners")?;
            events.push(listener(&pod_read_unaligned(&bytes), time_ns));
        }
        Ok(events)
    }

    /// The totals of each network namespace.
    pub fn namespaces(&self) -> Result<HashMap<u32, [u64; TOTALS]>> {
        self.namespaces
            .iter()
            .map(|entry| {
                let (netns, bytes) = entry.context("cannot read the table of namespaces")?;
                Ok((netns, pod_read_unaligned(&bytes)))
            })
            .collect()
    }

    /// What was dropped, by reason and place.
    pub fn drops(&self) -> Result<Vec<(DropPlace, DropCount)>> {
        self.drops
            .iter()
            .map(|entry| {
                let (place, count) = entry.context("cannot read the table of drops")?;
                Ok((pod_read_unaligned(&place), pod_read_unaligned(&count)))
            })
            .collect()
    }

    /// These processes hold sockets: what they do is worth telling.
    pub fn note_processes(&mut self, pids: &HashSet<u32>) -> Result<()> {
        for pid in pids {
            let noted = self.processes.insert(pid, 1, 0);
            noted.with_context(|| format!("no room for process {pid} in the table of those that hold sockets"))?;
        }
        Ok(())
    }

    /// Takes out half-open connections whose end nobody saw, and tells of them.
    pub fn sweep(&mut self) -> Result<Vec<Event>> {
        let now = boot_ns();
        let mut gone = Vec::new();
        for entry in self.requests.iter() {
            let (key, bytes) = entry.context("cannot read the table of half-open connections")?;
            let request: Request = pod_read_unaligned(&bytes);
            if now / 1_000_000_000 > u64::from(request.seen_s) + SILENCE_S {
                gone.push((key, request));
            }
        }
        let mut events = Vec::new();
        for (key, request) in gone {
            // One that a hook took out meanwhile was told of.
            if self.requests.remove(&key).is_ok() {
                events.push(silent(&pod_read_unaligned(&key), &request, now));
            }
        }
        Ok(events)
    }
}

fn listener(tally: &Tally, time_ns: u64) -> Event {
    Event {
        envelope: Envelope {
            time_ns,
            cookie: tally.queues.listener,
            saddr: tally.saddr,
            sport: tally.sport,
            kind: Kind::Listener as u8,
            via: Program::SnapshotIter as u16,
            family: tally.family,
            netns: tally.netns,
            ..Envelope::zeroed()
        },
        detail: Detail::Listener(Listener {
            queues: tally.queues,
            totals: tally.totals,
            inode: tally.inode,
            before: u32::from(tally.before),
            reserved: 0,
        }),
    }
}

fn silent(key: &RequestKey, request: &Request, time_ns: u64) -> Event {
    let address: [u8; 16] = bytemuck::cast(key.saddr);
    let v4 = std::net::Ipv6Addr::from(address).to_ipv4_mapped().is_some();
    Event {
        envelope: Envelope {
            time_ns,
            saddr: key.saddr,
            daddr: key.daddr,
            sport: key.sport,
            dport: key.dport,
            kind: Kind::HalfOpenEnded as u8,
            via: Program::SnapshotIter as u16,
            family: if v4 { 4 } else { 6 },
            netns: key.netns,
            ..Envelope::zeroed()
        },
        detail: Detail::HalfOpenEnded(HalfOpenEnded {
            queues: Queues::UNKNOWN,
            // It ended some time ago, and nobody knows when.
            half_open_ns: UNKNOWN,
            cause: ending::UNKNOWN,
            synacks: 0,
            refusals: u32::from(request.refusals),
            reserved: 0,
        }),
    }
}
