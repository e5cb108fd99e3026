//! The kernel side's tables of listeners, namespaces and half-open connections.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap as Table, MapData},
};
use bytemuck::{Zeroable as _, pod_read_unaligned};
use socklife_abi::{
    counter::{MISSED, Missed},
    event::{
        Closed, END_UNSEEN, Envelope, HalfOpenEnded, Kind, Listener, MAPPED, Queues, TOTALS, UNCOUNTED, UNKNOWN, ending,
    },
    program::Program,
    table::{
        Book, DropCount, DropPlace, ENTRIES, Entry, Gone, Life, ListenKey, Listening, Request, RequestKey, Tally, phase,
    },
};

use super::{look::Look, test_run};
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
    lives: Table<MapData, u64, [u8; size_of::<Life>()]>,
    graves: Table<MapData, u64, [u8; size_of::<Life>()]>,
    books: Table<MapData, u32, [u8; size_of::<Book>()]>,
    standing: Table<MapData, u32, [u8; 5 * 8]>,
    listening: Table<MapData, [u8; size_of::<ListenKey>()], [u8; size_of::<Listening>()]>,
    looks: Option<Looks>,
    /// The kinds that are wanted.
    events: u64,
    /// What looking has found, by [`Missed`].
    found: [u64; MISSED],
    /// The same by namespace.
    found_in: HashMap<u32, Book>,
    /// Connections that were there at the last look and ended while hooks were detached, by phase.
    stood: HashMap<u32, [u64; 5]>,
}

/// What walks the tables of sockets.
pub struct Looks {
    /// Connections that are gone.
    pub lives: Look,
    /// Listeners that are gone.
    pub listeners: Look,
}

impl Tables {
    /// Of a loaded object.
    pub fn of(ebpf: &mut Ebpf, looks: Option<Looks>, events: u64) -> Result<Self> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let (listeners, namespaces, requests) = (take("LISTENERS")?, take("NAMESPACES")?, take("REQUESTS")?);
        let (processes, drops) = (take("PROCESSES")?, take("DROPS")?);
        let (lives, graves) = (take("LIVES")?, take("GRAVES")?);
        let (books, standing, listening) = (take("BOOKS")?, take("STANDING")?, take("LISTENING")?);
        Ok(Self {
            listeners: Table::try_from(listeners).context("cannot use the map LISTENERS")?,
            namespaces: Table::try_from(namespaces).context("cannot use the map NAMESPACES")?,
            requests: Table::try_from(requests).context("cannot use the map REQUESTS")?,
            processes: Table::try_from(processes).context("cannot use the map PROCESSES")?,
            drops: Table::try_from(drops).context("cannot use the map DROPS")?,
            lives: Table::try_from(lives).context("cannot use the map LIVES")?,
            graves: Table::try_from(graves).context("cannot use the map GRAVES")?,
            books: Table::try_from(books).context("cannot use the map BOOKS")?,
            standing: Table::try_from(standing).context("cannot use the map STANDING")?,
            listening: Table::try_from(listening).context("cannot use the map LISTENING")?,
            looks,
            events,
            found: [0; MISSED],
            found_in: HashMap::new(),
            stood: HashMap::new(),
        })
    }

    /// Each listener as an event, with its queues as they are now: the program looks at each.
    pub fn listeners(&self, refresh: Option<&OwnedFd>) -> Result<Vec<Event>> {
        let time_ns = boot_ns();
        if let Some(program) = refresh {
            for key in self.listeners.keys() {
                let key = key.context("cannot read the table of listeners")?;
                // Where the kernel does not run it, the queues are what hooks saw last.
                let _ = test_run::run(program, key);
            }
        }
        let mut events = Vec::new();
        for entry in self.listeners.iter() {
            let (_, bytes) = entry.context("cannot read the table of listeners")?;
            let tally: Tally = pod_read_unaligned(&bytes);
            // One that a program writes at this moment is there the next time.
            if tally.netns != 0 {
                events.push(listener(&tally, time_ns));
            }
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

    /// What was counted of the connections of each network namespace, with what looking has found.
    pub fn books(&self) -> Result<HashMap<u32, Book>> {
        let mut books = HashMap::new();
        for entry in self.books.iter() {
            let (netns, bytes) = entry.context("cannot read the books of namespaces")?;
            let mut book: Book = pod_read_unaligned(&bytes);
            if let Some(found) = self.found_in.get(&netns) {
                book.iter_mut().zip(found).for_each(|(count, more)| *count += more);
            }
            books.insert(netns, book);
        }
        Ok(books)
    }

    /// How many connections the last look found in each phase, by network namespace.
    pub fn standing(&self) -> Result<HashMap<u32, [u64; 5]>> {
        let mut standing = self.stood.clone();
        for entry in self.standing.iter() {
            let (netns, bytes) = entry.context("cannot read what stands")?;
            let phases: [u64; 5] = pod_read_unaligned(&bytes);
            let sums = standing.entry(netns).or_default();
            sums.iter_mut().zip(phases).for_each(|(sum, count)| *sum += count);
        }
        Ok(standing)
    }

    /// How often looking has found what is counted in this slot.
    pub fn found(&self, slot: usize) -> u64 {
        self.found[slot]
    }

    /// Connections that hooks found to be gone, with nobody to have seen it.
    pub fn graves(&mut self) -> Result<Vec<Event>> {
        let mut graves = Vec::new();
        for entry in self.graves.iter() {
            graves.push(entry.context("cannot read the table of sockets that are gone")?);
        }
        let mut events = Vec::new();
        for (key, bytes) in graves {
            if self.graves.remove(&key).is_ok() {
                events.push(unseen(&pod_read_unaligned(&bytes)));
            }
        }
        Ok(events)
    }

    /// Looks for connections and listeners that are gone, takes them out, and tells of them.
    pub fn look(&mut self) -> Result<Vec<Event>> {
        let mut events = self.graves()?;
        self.none_stands();
        let Some(looks) = &self.looks else { return Ok(events) };
        let (lives, listeners) = (looks.lives.read()?, looks.listeners.read()?);
        for Gone { key, life } in lives.chunks_exact(size_of::<Gone>()).map(pod_read_unaligned) {
            let still = self
                .lives
                .get(&key, 0)
                .is_ok_and(|bytes| bytes == bytemuck::cast::<_, [u8; size_of::<Life>()]>(life));
            // What a hook took out, or began anew, meanwhile it told of.
            if still && self.lives.remove(&key).is_ok() {
                self.note(&life);
                if life.phase == phase::OPEN && Kind::Closed.is_in(self.events) {
                    events.push(unseen(&life));
                }
            }
        }
        let time_ns = boot_ns();
        for key in listeners.chunks_exact(8).map(pod_read_unaligned::<u64>) {
            let Ok(bytes) = self.listeners.get(&key, 0) else {
                continue;
            };
            if self.listeners.remove(&key).is_ok() {
                let tally: Tally = pod_read_unaligned(&bytes);
                self.unlist(key, &tally);
                events.push(listener(&tally, time_ns));
            }
        }
        Ok(events)
    }

    /// Counts what stands, and with it what is gone by now and was there when the last look was taken.
    pub fn settle(&mut self) -> Result<()> {
        self.none_stands();
        let Some(looks) = &self.looks else { return Ok(()) };
        let gone = looks.lives.read()?;
        for Gone { life, .. } in gone.chunks_exact(size_of::<Gone>()).map(pod_read_unaligned) {
            let phases = self.stood.entry(life.netns).or_default();
            if let Some(count) = phases.get_mut(usize::from(life.phase)) {
                *count += 1;
            }
        }
        Ok(())
    }

    fn none_stands(&mut self) {
        let old: Vec<u32> = self.standing.keys().filter_map(Result::ok).collect();
        for netns in old {
            // Nobody else takes it out.
            let _ = self.standing.remove(&netns);
        }
    }

    fn note(&mut self, life: &Life) {
        let (missed, entry) = match life.phase {
            phase::OPEN => (Missed::End, Entry::ClosedUnseen),
            phase::CONNECTING => (Missed::Outcome, Entry::ConnectLost),
            phase::CHILD => (Missed::Outcome, Entry::ChildLost),
            _ => return,
        };
        self.found[missed as usize] += 1;
        self.found_in.entry(life.netns).or_insert([0; ENTRIES])[entry as usize] += 1;
    }

    /// One less listens at its address.
    fn unlist(&mut self, key: u64, tally: &Tally) {
        let address = bytemuck::cast(ListenKey {
            saddr: tally.saddr,
            netns: tally.netns,
            sport: u32::from(tally.sport),
        });
        let Ok(bytes) = self.listening.get(&address, 0) else {
            return;
        };
        let there: Listening = pod_read_unaligned(&bytes);
        // A hook that changes it meanwhile is rare, and what is wrong then is which of several listeners refused a SYN.
        let _ = if there.count <= 1 {
            self.listening.remove(&address)
        } else {
            let less = Listening {
                sk: if there.sk == key { 0 } else { there.sk },
                count: there.count - 1,
            };
            self.listening.insert(address, bytemuck::cast::<_, [u8; 16]>(less), 0)
        };
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
            fastopen_queue: tally.fastopen_queue,
            fastopen_queue_limit: tally.fastopen_queue_limit,
            reserved: 0,
        }),
    }
}

/// A connection that ended some time ago, and nobody knows when.
fn unseen(life: &Life) -> Event {
    Event {
        envelope: Envelope {
            time_ns: boot_ns(),
            cookie: life.cookie,
            saddr: life.saddr,
            daddr: life.daddr,
            sport: life.sport,
            dport: life.dport,
            kind: Kind::Closed as u8,
            via: Program::LivesIter as u16,
            family: life.family & 127,
            flags: if life.family & 128 == 0 { 0 } else { MAPPED },
            netns: life.netns,
            ..Envelope::zeroed()
        },
        detail: Detail::Closed(Closed {
            lifetime_ns: UNKNOWN,
            flags: END_UNSEEN | UNCOUNTED,
            ..Closed::zeroed()
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
            deferred: u32::from(request.deferred_us != 0),
        }),
    }
}
