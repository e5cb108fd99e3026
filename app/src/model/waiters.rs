//! The connections that wait for accept(2) now, and since when.
//!
//! What ends a wait is accept(2), or the end of the listener; a child that is reset meanwhile keeps its place until
//! somebody accepts it (`inet_csk_accept` does not ask for its state).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use super::Key;
use crate::event::Event;

/// More than that are not followed one by one.
const MOST: usize = 65_536;
/// Accepts that came before their `accept_queued`: from another CPU, so they are few, and it comes at once.
const EARLY: usize = 256;
/// An accept is not early for a connection that is queued later than this.
const LATE_NS: u64 = 1_000_000_000;

/// A connection: by its socket's cookie, or by its addresses where that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Connection {
    Cookie(u64),
    FourTuple {
        netns: u32,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
    },
}

impl Connection {
    /// The connection that an event is about.
    pub fn of(event: &Event) -> Self {
        let envelope = &event.envelope;
        if envelope.cookie != 0 {
            return Self::Cookie(envelope.cookie);
        }
        Self::FourTuple {
            netns: envelope.netns,
            local: (event.laddr(), envelope.sport),
            remote: (event.raddr(), envelope.dport),
        }
    }
}

/// Who waits longest at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// Since then, on the boot clock.
    Since(u64),
    /// Since before the trace.
    Unknown,
}

/// All connections that wait.
#[derive(Debug, Default)]
pub struct Waiters {
    queues: HashMap<Key, BTreeSet<(u64, Connection)>>,
    places: HashMap<Connection, (Key, u64)>,
    early: VecDeque<(Connection, u64)>,
    left_out: u64,
}

impl Waiters {
    /// A connection stands in the accept queue from then on, unless it is known to have left it.
    pub fn joined(&mut self, connection: Connection, listener: Key, since: u64) {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == connection)
            && let Some((_, left)) = self.early.remove(at)
            && since <= left.saturating_add(LATE_NS)
        {
            return;
        }
        self.remove(&connection);
        if self.places.len() >= MOST {
            self.left_out += 1;
            return;
        }
        self.places.insert(connection, (listener, since));
        self.queues.entry(listener).or_default().insert((since, connection));
    }

    /// It left, at that time. The listener where it waited, if that is known.
    pub fn left(&mut self, connection: Connection, time: u64) -> Option<Key> {
        let place = self.remove(&connection);
        if place.is_none() {
            if self.early.len() >= EARLY {
                self.early.pop_front();
            }
            self.early.push_back((connection, time));
        }
        place
    }

    fn remove(&mut self, connection: &Connection) -> Option<Key> {
        let (listener, since) = self.places.remove(connection)?;
        if let Some(queue) = self.queues.get_mut(&listener) {
            queue.remove(&(since, *connection));
        }
        Some(listener)
    }

    /// So many wait there now. The queue is first in, first out: if more are known, nobody saw the first of them leave.
    /// Those.
    pub fn trim(&mut self, listener: Key, depth: usize, time: u64) -> Vec<Connection> {
        let mut unseen = Vec::new();
        let Some(queue) = self.queues.get_mut(&listener) else {
            return unseen;
        };
        let newer = queue.iter().rev().take_while(|(since, _)| *since > time).count();
        while queue.len() > depth.saturating_add(newer)
            && let Some((_, connection)) = queue.pop_first()
        {
            self.places.remove(&connection);
            unseen.push(connection);
        }
        unseen
    }

    /// The listener is gone, and all that waited there.
    pub fn forget(&mut self, listener: Key) {
        for (_, connection) in self.queues.remove(&listener).unwrap_or_default() {
            self.places.remove(&connection);
        }
    }

    /// The listener has another name now.
    pub fn rename(&mut self, old: Key, new: Key) {
        let moved = self.queues.remove(&old).unwrap_or_default();
        for (since, connection) in &moved {
            self.places.insert(*connection, (new, *since));
        }
        self.queues.entry(new).or_default().extend(moved);
    }

    /// Since when the first waits, of those that are followed.
    pub fn first(&self, listener: Key) -> Option<u64> {
        self.queues.get(&listener)?.first().map(|(since, _)| *since)
    }

    /// How many wait, of those that are followed.
    pub fn count(&self, listener: Key) -> usize {
        self.queues.get(&listener).map_or(0, BTreeSet::len)
    }

    /// How many were not followed, for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, EARLY, Key, LATE_NS, MOST, Waiters};

    const HERE: Key = Key::Cookie(1);

    fn child(number: u64) -> Connection {
        Connection::Cookie(number)
    }

    #[test]
    fn first_in_first_out() {
        let mut waiters = Waiters::default();
        assert_eq!(waiters.first(HERE), None);
        waiters.joined(child(8), HERE, 20);
        waiters.joined(child(7), HERE, 10);
        waiters.joined(child(9), Key::Cookie(2), 5);
        assert_eq!((waiters.first(HERE), waiters.count(HERE)), (Some(10), 2));
        assert_eq!(waiters.left(child(7), 30), Some(HERE));
        assert_eq!(waiters.first(HERE), Some(20));
        assert_eq!(waiters.left(child(8), 30), Some(HERE));
        assert_eq!((waiters.first(HERE), waiters.count(HERE)), (None, 0));
    }

    #[test]
    fn an_accept_may_come_before_the_queueing() {
        let mut waiters = Waiters::default();
        assert_eq!(waiters.left(child(7), 11), None);
        waiters.joined(child(7), HERE, 10);
        assert_eq!(waiters.count(HERE), 0);
        waiters.joined(child(7), HERE, 12);
        assert_eq!(waiters.count(HERE), 1, "known once");
        waiters.left(child(8), 11);
        waiters.joined(child(8), HERE, 11 + LATE_NS + 1);
        assert_eq!(waiters.count(HERE), 2, "another connection with that four-tuple");
    }

    #[test]
    fn a_depth_from_the_kernel_takes_out_the_oldest() {
        let mut waiters = Waiters::default();
        for number in 1..=5 {
            waiters.joined(child(number), HERE, number * 10);
        }
        assert_eq!(waiters.trim(HERE, 2, 40), [child(1), child(2)]);
        assert_eq!(
            (waiters.count(HERE), waiters.first(HERE)),
            (3, Some(30)),
            "one is newer than the depth"
        );
        waiters.trim(HERE, 9, 60);
        assert_eq!(waiters.count(HERE), 3);
        waiters.rename(HERE, Key::Cookie(2));
        assert_eq!((waiters.count(HERE), waiters.first(Key::Cookie(2))), (0, Some(30)));
        assert_eq!(waiters.left(child(3), 70), Some(Key::Cookie(2)));
        waiters.forget(Key::Cookie(2));
        assert!(waiters.places.is_empty());
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut waiters = Waiters::default();
        for number in 0..MOST as u64 + 3 {
            waiters.joined(child(number), HERE, number);
        }
        assert_eq!((waiters.count(HERE), waiters.left_out()), (MOST, 3));
        for number in 0..EARLY as u64 + 3 {
            waiters.left(child(1_000_000 + number), 1);
        }
        assert_eq!(waiters.early.len(), EARLY);
    }
}
