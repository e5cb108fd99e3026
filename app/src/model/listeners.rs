//! All listeners: which one an event belongs to, and what that changes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
};

use socklife_abi::{
    event::{self as abi, Queues, UNKNOWN, UNKNOWN_DEPTH},
    program::Program,
};

use super::{
    Key, Listener, Oldest,
    listener::Fit,
    waiters::{Connection, Waiters},
};
use crate::event::{Detail, Event};

/// More listeners than that are not followed.
const MOST: usize = 4096;
/// Closed ones that are kept, for what they waited.
const CLOSED: usize = 1024;

/// Every listener that events told of.
#[derive(Debug, Default)]
pub struct Listeners {
    known: HashMap<Key, Listener>,
    /// By namespace and port.
    ports: HashMap<(u32, u16), Vec<Key>>,
    waiters: Waiters,
    /// Who left an accept queue and nobody saw how, in this interval and in the last: an accept that is told later was
    /// seen after all.
    unseen: [HashMap<Connection, Key>; 2],
    /// In the order in which they were closed.
    closed: VecDeque<Key>,
    left_out: u64,
}

impl Listeners {
    /// Takes an event, whatever it is.
    pub fn take(&mut self, event: &Event) {
        match &event.detail {
            Detail::Listening(listening) => self.listening(event, listening),
            Detail::Listener(counted) => self.counted(event, counted),
            Detail::SynQueued(abi::SynQueued { queues })
            | Detail::SynackSent(abi::SynackSent { queues })
            | Detail::SynackRetransmitted(abi::SynackRetransmitted { queues, .. })
            | Detail::CookieSent(abi::CookieSent { queues })
            | Detail::CookieAccepted(abi::CookieAccepted { queues })
            | Detail::CookieRejected(abi::CookieRejected { queues })
            | Detail::SynRefused(abi::SynRefused { queues, .. })
            | Detail::HalfOpenEnded(abi::HalfOpenEnded { queues, .. })
            | Detail::AcceptDeferred(abi::AcceptDeferred { queues, .. })
            | Detail::AcceptRefused(abi::AcceptRefused { queues, .. }) => {
                self.happened(event, queues, None);
            }
            // One without a listener is of a socket that is none.
            Detail::AcceptFailed(failed) if failed.queues.listener != 0 => {
                self.happened(event, &failed.queues, None);
            }
            Detail::AcceptQueued(queued) => self.queued(event, queued),
            Detail::Accepted(accepted) => self.accepted(event, accepted),
            Detail::NeverAccepted(never) => {
                let place = self.left(event);
                let queues = Queues {
                    listener: never.listener,
                    ..Queues::UNKNOWN
                };
                self.happened(event, &queues, place);
            }
            // The rest is not about a listener.
            _ => {}
        }
    }

    /// Takes what the kernel side counted of all listeners that are there now: one that it counted before and no longer
    /// does is gone, though nothing told so.
    pub fn take_all(&mut self, events: &[Event]) {
        let mut there = HashSet::new();
        for event in events {
            self.take(event);
            there.insert(self.key(event, event.envelope.cookie));
        }
        let gone = self
            .known
            .iter()
            .filter(|(key, listener)| listener.figures.is_counted() && !listener.closed && !there.contains(key));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.close(key);
        }
    }

    /// The next interval begins.
    pub fn next_interval(&mut self) {
        for listener in self.known.values_mut() {
            listener.next_interval();
        }
        self.unseen.swap(0, 1);
        self.unseen[0].clear();
    }

    /// Each of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Listener)> {
        self.known.iter().map(|(key, listener)| (*key, listener))
    }

    /// Who waits longest for accept(2) at this listener.
    pub fn oldest(&self, key: Key) -> Option<Oldest> {
        if self.known.get(&key).is_some_and(|listener| listener.older_children > 0) {
            return Some(Oldest::Unknown);
        }
        let strangers = || self.known.get(&key).is_some_and(|listener| listener.strangers);
        match self.waiters.first(key) {
            Some(since) => Some(Oldest::Since(since)),
            None => strangers().then_some(Oldest::Unknown),
        }
    }

    /// Events of listeners that are not followed, for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Connections whose wait is not followed, for want of room.
    pub fn waiters_left_out(&self) -> u64 {
        self.waiters.left_out()
    }

    fn listening(&mut self, event: &Event, listening: &abi::Listening) {
        let key = self.key(event, event.envelope.cookie);
        if let Some(listener) = self.entry(key, event) {
            listener.listens(event, listening);
            self.open(key);
        }
    }

    fn counted(&mut self, event: &Event, counted: &abi::Listener) {
        self.adopt(event, counted);
        let key = self.key(event, event.envelope.cookie);
        let Some(listener) = self.entry(key, event) else {
            return;
        };
        let first = !listener.figures.is_counted();
        listener.counted(event, counted);
        if event.envelope.via != Program::SnapshotIter as u16 {
            self.close(key);
            return;
        }
        let depth = listener.queues.accept_queue;
        self.open(key);
        if depth == UNKNOWN_DEPTH {
            return;
        }
        let unseen = self.waiters.trim(key, depth as usize, event.envelope.time_ns);
        if let Some(listener) = self.known.get_mut(&key) {
            listener.unseen += unseen.len() as u64;
        }
        self.unseen[0].extend(unseen.into_iter().map(|connection| (connection, key)));
        let followed = u32::try_from(self.waiters.count(key)).unwrap_or(u32::MAX);
        if let Some(listener) = self.known.get_mut(&key) {
            let older = depth.saturating_sub(followed);
            if first && listener.before {
                listener.older_children = older;
                listener.older_at_first = older;
            }
            listener.older_children = listener.older_children.min(older);
            listener.strangers = older > listener.older_children;
        }
    }

    fn queued(&mut self, event: &Event, queued: &abi::AcceptQueued) {
        let Some((key, listener)) = self.happened(event, &queued.queues, None) else {
            return;
        };
        if queued.half_open_ns != UNKNOWN {
            // Until its final ACK: after that it is the listener that waits.
            let deferred = match queued.deferred_ns {
                UNKNOWN => 0,
                ns => ns,
            };
            listener.half_open.add(queued.half_open_ns.saturating_sub(deferred));
        }
        self.waiters.joined(Connection::of(event), key, event.envelope.time_ns);
    }

    fn accepted(&mut self, event: &Event, accepted: &abi::Accepted) {
        let place = self.left(event);
        let Some((_, listener)) = self.happened(event, &accepted.queues, place) else {
            return;
        };
        if accepted.accept_wait_ns == UNKNOWN {
            listener.older_children = listener.older_children.saturating_sub(1);
        } else {
            listener.accept.add(accepted.accept_wait_ns);
        }
        if let Some(task) = event.task() {
            listener.acceptors.add(task.into());
        }
    }

    /// A connection left the accept queue; the listener where it waited.
    fn left(&mut self, event: &Event) -> Option<Key> {
        let connection = Connection::of(event);
        if let Some(key) = self.unseen.iter_mut().find_map(|unseen| unseen.remove(&connection))
            && let Some(listener) = self.known.get_mut(&key)
        {
            listener.unseen = listener.unseen.saturating_sub(1);
        }
        self.waiters.left(connection, event.envelope.time_ns)
    }

    /// Counts an event at its listener: the one that it names, or the one where the connection waited, or the one that
    /// its address finds.
    fn happened(&mut self, event: &Event, queues: &Queues, place: Option<Key>) -> Option<(Key, &mut Listener)> {
        let key = match place {
            Some(place) if queues.listener == 0 => place,
            _ => self.key(event, queues.listener),
        };
        let listener = self.entry(key, event)?;
        listener.reached_at(event.laddr());
        // What user space found by itself the kernel side did not count; nor, by listener, what names none.
        let apart = event.envelope.via == Program::SnapshotIter as u16
            || (queues.listener == 0 && matches!(key, Key::Cookie(_)))
            || listener.group;
        listener.figures.add(event.envelope.time_ns, &event.detail, apart);
        listener.queues_were(event.envelope.time_ns, queues);
        Some((key, listener))
    }

    /// The listener of this cookie, or else the only one that has the event's address.
    fn key(&self, event: &Event, cookie: u64) -> Key {
        if cookie != 0 {
            return Key::Cookie(cookie);
        }
        let (netns, address, port) = place(event);
        let there = self.ports.get(&(netns, port)).map_or(&[][..], Vec::as_slice);
        let fitting = |fit: Fit| {
            there.iter().filter(move |key| {
                self.known
                    .get(key)
                    .is_some_and(|known| !known.closed && !known.group && known.serves(address) == fit)
            })
        };
        let mut fits = fitting(Fit::Exact).collect::<Vec<_>>();
        if fits.is_empty() {
            fits.extend(fitting(Fit::Any));
        }
        match fits[..] {
            [only] => *only,
            _ => Key::Address(netns, address, port),
        }
    }

    /// What is known of a listener, with room made for it if it is new.
    fn entry(&mut self, key: Key, event: &Event) -> Option<&mut Listener> {
        if !self.known.contains_key(&key) {
            if self.known.len() >= MOST {
                self.drop_closed();
            }
            if self.known.len() >= MOST {
                self.left_out += 1;
                return None;
            }
            let (netns, _, port) = place(event);
            let mut listener = Listener::new(netns, port);
            listener.group = matches!(key, Key::Address(..));
            self.ports.entry((netns, port)).or_default().push(key);
            self.known.insert(key, listener);
        }
        self.known.get_mut(&key)
    }

    /// An older listener has no cookie until somebody asks: it is the one that was known by its address.
    fn adopt(&mut self, event: &Event, counted: &abi::Listener) {
        let new = Key::Cookie(event.envelope.cookie);
        let (netns, address, port) = place(event);
        let old = Key::Address(netns, address, port);
        let same = |listener: &Listener| !listener.group && listener.inode == counted.inode;
        if event.envelope.cookie == 0 || !self.known.get(&old).is_some_and(same) {
            return;
        }
        if let Some(listener) = self.remove(old) {
            self.waiters.rename(old, new);
            if !self.known.contains_key(&new) {
                self.ports.entry((netns, port)).or_default().push(new);
                self.known.insert(new, listener);
            }
        }
    }

    /// A listener that was closed may listen again, and one that was missed in the kernel side's table is there after all.
    fn open(&mut self, key: Key) {
        if let Some(listener) = self.known.get_mut(&key)
            && listener.closed
        {
            listener.closed = false;
            self.closed.retain(|closed| *closed != key);
        }
    }

    fn close(&mut self, key: Key) {
        self.waiters.forget(key);
        if let Some(listener) = self.known.get_mut(&key)
            && !listener.closed
        {
            listener.closed = true;
            listener.older_children = 0;
            listener.strangers = false;
            self.closed.push_back(key);
            if self.closed.len() > CLOSED {
                self.drop_closed();
            }
        }
    }

    /// Forgets the one that was closed first.
    fn drop_closed(&mut self) {
        if let Some(key) = self.closed.pop_front() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Listener> {
        let listener = self.known.remove(&key)?;
        let place = (listener.netns, listener.port);
        if let Some(there) = self.ports.get_mut(&place) {
            there.retain(|other| *other != key);
            if there.is_empty() {
                self.ports.remove(&place);
            }
        }
        Some(listener)
    }
}

/// Where the event's own end is.
fn place(event: &Event) -> (u32, IpAddr, u16) {
    (event.envelope.netns, event.laddr(), event.envelope.sport)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use socklife_abi::event::{Queues, Total, UNKNOWN, ending, refusal};

    use super::{CLOSED, Key, Listener, Listeners, MOST, Oldest};
    use crate::{
        event::Event,
        model::{
            figures,
            sample::{
                HERE, NETNS, accept_failed, accept_queued, accepted, by, event, event_at, from_table, half_open_ended,
                listener, listening, never_accepted, older_listener, queues, syn_queued, syn_refused,
            },
        },
    };

    const MS: u64 = 1_000_000;
    const COOKIE: u64 = 9;

    fn told(events: &[Event]) -> Listeners {
        let mut listeners = Listeners::default();
        for event in events {
            listeners.take(event);
        }
        listeners
    }

    fn at(listeners: &Listeners, key: Key) -> &Listener {
        listeners
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, listener)| listener)
            .expect("it is known")
    }

    fn only(listeners: &Listeners) -> &Listener {
        assert_eq!(listeners.iter().count(), 1);
        at(listeners, Key::Cookie(COOKIE))
    }

    /// Two connections by two processes, a third that waits, and what did not come so far.
    fn story() -> Vec<Event> {
        vec![
            by(event(MS, COOKIE, listening(1024)), 41, "serve"),
            event(10 * MS, 100, syn_queued(queues(COOKIE, 1, 0))),
            event(12 * MS, 100, accept_queued(queues(COOKIE, 0, 1), 2 * MS)),
            by(event(15 * MS, 100, accepted(queues(COOKIE, 0, 0), 3 * MS)), 41, "serve"),
            event(20 * MS, 101, syn_queued(queues(COOKIE, 1, 0))),
            event(24 * MS, 101, accept_queued(queues(COOKIE, 0, 1), 4 * MS)),
            by(
                event(30 * MS, 101, accepted(queues(COOKIE, 0, 0), 6 * MS)),
                42,
                "worker",
            ),
            event(40 * MS, 102, syn_queued(queues(COOKIE, 1, 0))),
            event(41 * MS, 102, accept_queued(queues(COOKIE, 0, 1), MS)),
            event(50 * MS, 0, syn_refused(queues(COOKIE, 0, 1), refusal::NO_MEMORY)),
            event(60 * MS, 103, syn_queued(queues(COOKIE, 1, 1))),
            event(70 * MS, 103, half_open_ended(queues(COOKIE, 0, 1), ending::RESET)),
        ]
    }

    fn assert_story(listeners: &Listeners) {
        let listener = only(listeners);
        let totals = listener.totals();
        let of = |total: Total| totals[total as usize];
        assert_eq!(
            (of(Total::SynQueued), of(Total::AcceptQueued), of(Total::Accepted)),
            (4, 3, 2)
        );
        assert_eq!(figures::refused_syns(&totals)[refusal::NO_MEMORY as usize], 1);
        assert_eq!(figures::ended(&totals)[ending::RESET as usize], 1);
        assert_eq!((figures::arrivals(&totals), Listener::refusals(&totals)), (5, 1));
        assert_eq!(
            listener.queues,
            Queues {
                listener: 0,
                ..queues(0, 0, 1)
            },
            "depths, 128 each"
        );
        assert_eq!(listener.clamped(), Some((1024, 128)));
        assert_eq!(listener.owner.map(|owner| owner.pid), Some(41));
        let half_open = listener.half_open.all().expect("three");
        assert_eq!((half_open.count, half_open.max), (3, 4 * MS));
        let accept = listener.accept.all().expect("two");
        assert_eq!((accept.count, accept.max), (2, 6 * MS));
        let acceptors = listener.acceptors.ranked();
        assert_eq!(
            acceptors
                .iter()
                .map(|acceptor| acceptor.process.pid)
                .collect::<Vec<_>>(),
            [41, 42]
        );
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), Some(Oldest::Since(41 * MS)));
        assert!(!listener.closed && !listener.before && !listener.group);
        assert_eq!(listener.address(), Some(HERE.ip()));
    }

    #[test]
    fn a_story_comes_to_exact_figures_in_any_order() {
        let story = story();
        assert_story(&told(&story));
        for by in 1..story.len() {
            let mut turned = story.clone();
            turned.rotate_left(by);
            assert_story(&told(&turned));
        }
        let mut backwards = story;
        backwards.reverse();
        assert_story(&told(&backwards));
    }

    #[test]
    fn totals_are_authoritative_and_nothing_counts_twice() {
        let mut listeners = told(&story());
        let counted = [(Total::SynQueued, 1000), (Total::AcceptQueued, 5), (Total::Accepted, 4)];
        let total = from_table(event(80 * MS, COOKIE, listener(queues(COOKIE, 3, 1), &counted)));
        listeners.take(&total);
        listeners.take(&event(79 * MS, 104, syn_queued(queues(COOKIE, 9, 9))));
        listeners.take(&event(81 * MS, 105, syn_queued(queues(COOKIE, 4, 1))));
        let listener = only(&listeners);
        assert_eq!(listener.totals()[Total::SynQueued as usize], 1001);
        assert_eq!(listener.totals()[Total::Accepted as usize], 4);
        assert_eq!((listener.queues.syn_queue, listener.queues.accept_queue), (4, 1));
        assert_eq!(listener.inode, 77);
    }

    #[test]
    fn who_left_unseen_is_counted_until_it_is_seen_after_all() {
        let mut listeners = Listeners::default();
        for child in 100..103 {
            listeners.take(&event(10 * MS, child, accept_queued(queues(COOKIE, 0, 1), MS)));
        }
        let totals = |accepted| [(Total::AcceptQueued, 3), (Total::Accepted, accepted)];
        let look = |time, accepted, waiting| {
            from_table(event(
                time,
                COOKIE,
                listener(queues(COOKIE, 0, waiting), &totals(accepted)),
            ))
        };
        listeners.take(&look(20 * MS, 0, 1));
        assert_eq!(
            (only(&listeners).unseen_accepts(), only(&listeners).recently_unseen()),
            (2, 2)
        );
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), Some(Oldest::Since(10 * MS)));
        listeners.next_interval();
        assert_eq!(only(&listeners).recently_unseen(), 0);
        // It was on its way.
        listeners.take(&event(19 * MS, 101, accepted(queues(COOKIE, 0, 1), 9 * MS)));
        listeners.take(&look(30 * MS, 1, 0));
        assert_eq!(only(&listeners).unseen_accepts(), 2, "one left since");
        // An event was lost: the kernel side counted it.
        listeners.take(&look(40 * MS, 3, 0));
        assert_eq!(only(&listeners).unseen_accepts(), 0);
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), None);
    }

    #[test]
    fn failed_accepts_are_counted_by_errno() {
        let failed = |time, errno| event(time, COOKIE, accept_failed(queues(COOKIE, 0, 1), errno));
        let listeners = told(&[failed(1, 24), failed(2, 24), failed(3, 71)]);
        let totals = only(&listeners).totals();
        assert_eq!(figures::failed_accepts(&totals)[..3], [1, 2, 0]);
    }

    #[test]
    fn intervals_tell_what_came_in_them() {
        let mut listeners = told(&story());
        listeners.next_interval();
        listeners.take(&event(90 * MS, 106, accept_queued(queues(COOKIE, 0, 2), 7 * MS)));
        let listener = only(&listeners);
        assert_eq!(listener.figures.recent()[Total::AcceptQueued as usize], 1);
        assert_eq!(listener.half_open.recent().map(|waits| waits.max), Some(7 * MS));
        assert_eq!(listener.accept.recent(), None);
    }

    #[test]
    fn a_listener_without_a_name_is_found_by_its_address() {
        let anywhere: SocketAddr = "0.0.0.0:80".parse().expect("an address");
        let mut listeners = told(&[event_at(anywhere, 1, COOKIE, listening(128))]);
        listeners.take(&event(2, 100, syn_refused(Queues::UNKNOWN, refusal::OTHER)));
        assert_eq!(only(&listeners).totals()[Total::SynRefused as usize], 1);
        // The kernel side did not count it of this listener, and never will.
        listeners.take(&from_table(event_at(
            anywhere,
            3,
            COOKIE,
            listener(queues(COOKIE, 0, 0), &[]),
        )));
        assert_eq!(only(&listeners).totals()[Total::SynRefused as usize], 1);
        // One at just this address comes first, as in the kernel.
        listeners.take(&event(4, 10, listening(128)));
        listeners.take(&event(5, 101, syn_refused(Queues::UNKNOWN, refusal::OTHER)));
        assert_eq!(at(&listeners, Key::Cookie(10)).totals()[Total::SynRefused as usize], 1);
    }

    #[test]
    fn one_of_several_listeners_stays_unknown() {
        let mut listeners = told(&[
            event(1, 10, listening(128)),
            event(2, 11, listening(128)),
            event(3, 100, syn_refused(Queues::UNKNOWN, refusal::OTHER)),
            event(4, 101, accept_queued(Queues::UNKNOWN, UNKNOWN)),
            event(5, 101, accepted(Queues::UNKNOWN, UNKNOWN)),
        ]);
        let group = Key::Address(NETNS, HERE.ip(), 80);
        let unknown = at(&listeners, group);
        assert!(unknown.group);
        assert_eq!(unknown.totals()[Total::SynRefused as usize], 1);
        assert_eq!(unknown.totals()[Total::Accepted as usize], 1);
        assert_eq!(listeners.iter().count(), 3);
        // One whose connection is known to wait at one of them.
        listeners.take(&event(6, 102, accept_queued(queues(11, 0, 1), UNKNOWN)));
        listeners.take(&event(7, 102, accepted(Queues::UNKNOWN, 1)));
        assert_eq!(at(&listeners, Key::Cookie(11)).totals()[Total::Accepted as usize], 1);
        assert_eq!(listeners.oldest(Key::Cookie(11)), None);
    }

    #[test]
    fn an_older_listener_is_told_from_its_own_address_until_it_has_a_cookie() {
        let nameless = from_table(event(1, 0, older_listener(queues(0, 0, 0))));
        let mut listeners = told(&[nameless, event(2, 100, syn_queued(queues(0, 1, 0)))]);
        let key = Key::Address(NETNS, HERE.ip(), 80);
        assert_eq!(at(&listeners, key).totals()[Total::SynQueued as usize], 1);
        assert!(at(&listeners, key).before && !at(&listeners, key).group);
        listeners.take(&event(2, 100, accept_queued(queues(0, 0, 1), MS)));
        let named = from_table(event(3, COOKIE, older_listener(queues(COOKIE, 0, 1))));
        listeners.take(&named);
        assert_eq!(only(&listeners).half_open.all().map(|waits| waits.count), Some(1));
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), Some(Oldest::Since(2)));
    }

    #[test]
    fn children_older_than_the_trace_are_the_oldest() {
        let key = Key::Cookie(COOKIE);
        let mut listeners = told(&[from_table(event(1, COOKIE, older_listener(queues(COOKIE, 0, 2))))]);
        listeners.take(&event(5, 100, accept_queued(queues(COOKIE, 0, 3), 1)));
        assert_eq!(listeners.oldest(key), Some(Oldest::Unknown));
        listeners.take(&event(6, 50, accepted(queues(COOKIE, 0, 2), UNKNOWN)));
        assert_eq!(listeners.oldest(key), Some(Oldest::Unknown));
        listeners.take(&event(7, 51, accepted(queues(COOKIE, 0, 1), UNKNOWN)));
        assert_eq!(listeners.oldest(key), Some(Oldest::Since(5)));
        listeners.take(&event(8, 100, accepted(queues(COOKIE, 0, 0), 3)));
        assert_eq!(listeners.oldest(key), None);
    }

    #[test]
    fn what_waited_at_a_closed_listener_waits_no_more() {
        let mut listeners = told(&story());
        listeners.take(&event(90 * MS, 102, never_accepted(COOKIE)));
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), None);
        listeners.take(&event(91 * MS, 104, accept_queued(queues(COOKIE, 0, 1), 1)));
        let figures = [(Total::SynQueued, 4), (Total::NeverAccepted, 2)];
        listeners.take(&event(92 * MS, COOKIE, listener(queues(COOKIE, 0, 0), &figures)));
        assert_eq!(listeners.oldest(Key::Cookie(COOKIE)), None);
        // A request of it finds out later.
        let late = half_open_ended(queues(COOKIE, 0, 0), ending::LISTENER_CLOSED);
        listeners.take(&event(93 * MS, 105, late));
        let listener = only(&listeners);
        assert!(listener.closed && !listener.was_closed);
        assert_eq!(listener.totals()[Total::NeverAccepted as usize], 2);
        assert_eq!(figures::ended(&listener.totals())[ending::LISTENER_CLOSED as usize], 1);
        listeners.next_interval();
        assert!(only(&listeners).was_closed);
    }

    #[test]
    fn a_listener_that_the_kernel_no_longer_counts_is_gone() {
        let counted = |cookie, time| from_table(event(time, cookie, listener(queues(cookie, 0, 0), &[])));
        let mut listeners = Listeners::default();
        listeners.take(&event(1, 3, listening(128)));
        listeners.take_all(&[counted(1, 1), counted(2, 1)]);
        listeners.take_all(&[counted(2, 2)]);
        let closed = |listeners: &Listeners, cookie| at(listeners, Key::Cookie(cookie)).closed;
        assert!(closed(&listeners, 1) && !closed(&listeners, 2));
        assert!(!closed(&listeners, 3), "it never was in the table");
        listeners.take_all(&[counted(1, 3), counted(2, 3)]);
        assert!(!closed(&listeners, 1), "it is there after all");
    }

    #[test]
    fn what_an_accept_that_was_lost_leaves_behind_is_put_right() {
        let mut listeners = told(&story());
        listeners.take(&event(45 * MS, 104, accept_queued(queues(COOKIE, 0, 2), 1)));
        let key = Key::Cookie(COOKIE);
        assert_eq!(listeners.oldest(key), Some(Oldest::Since(41 * MS)));
        listeners.take(&from_table(event(90 * MS, COOKIE, listener(queues(COOKIE, 0, 1), &[]))));
        assert_eq!(listeners.oldest(key), Some(Oldest::Since(45 * MS)));
    }

    #[test]
    fn there_is_an_end_to_it_and_that_is_counted() {
        let mut listeners = Listeners::default();
        let most = MOST as u64;
        for cookie in 1..=most {
            listeners.take(&event(1, cookie, listening(128)));
        }
        listeners.take(&event(2, 100, syn_queued(queues(most + 1, 0, 0))));
        assert_eq!((listeners.iter().count(), listeners.left_out()), (MOST, 1));
        // Closed ones make room, the first first.
        listeners.take(&event(3, 1, listener(queues(1, 0, 0), &[])));
        listeners.take(&event(4, 100, syn_queued(queues(most + 1, 0, 0))));
        assert_eq!((listeners.iter().count(), listeners.left_out()), (MOST, 1));
        for cookie in 2..=most {
            listeners.take(&event(5, cookie, listener(queues(cookie, 0, 0), &[])));
        }
        assert_eq!(listeners.iter().count(), CLOSED + 1);
    }
}
