//! What is wrong with those who hold a socket, which only time shows.

use std::collections::HashMap;

use socklife_abi::event::{Envelope, Finding, Holder, UNKNOWN_FD, finding, how};

use super::{Holders, PATIENCE_NS, by, event, holder, quiet};
use crate::event::{Detail, Event};

/// Holders that a finding names, for each socket.
const NAMED: usize = 8;
/// Children that ended and may be zombies, at a time.
pub(super) const ENDED: usize = 4096;
/// Descriptors that are looked at before a finding is told, at a time.
const LOOKED_AT: usize = 4096;
/// While more and more children are found to hold a listener, they are counted for so long before it is told.
const COUNTED_NS: u64 = 3 * PATIENCE_NS;

/// A descriptor that a process is believed to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub pid: u32,
    /// What.
    pub cookie: u64,
    /// By which number, or `UNKNOWN_FD`.
    pub fd: i32,
    /// The socket's inode, or 0.
    pub inode: u64,
}

/// A process whose descriptors must be looked at, with what it is believed to hold.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub pid: u32,
    /// When.
    pub time_ns: u64,
    /// What.
    pub held: Vec<Held>,
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Who.
    pub pid: u32,
    pub(super) comm: [u8; 16],
    pub(super) parent: Holder,
    /// When.
    pub since_ns: u64,
}

/// A child that served a connection for a second, held the listener all the time, and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    who: Holder,
    other: Holder,
    since_ns: u64,
}

/// Children of one listener's connections that hold the listener, too.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// With when they got their connection.
    pub since: HashMap<u32, u64>,
    ended: Vec<Evidence>,
    /// How many it was true of when time was up last, and since when of any.
    counted: usize,
    late_ns: u64,
    told: bool,
}

impl Holders {
    /// A child got a connection: it should not hold the listener that this came from.
    pub(super) fn suspect(&mut self, pid: u32, listener: u64, now: u64) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let inherited = process
            .holds
            .get(&listener)
            .is_some_and(|hold| hold.how == how::INHERITED);
        if inherited && !process.accepts && self.suspects.len() < self.room {
            let suspects = self.suspects.entry(listener).or_default();
            if !suspects.told && suspects.since.len() < self.room {
                suspects.since.entry(pid).or_insert(now);
            }
        }
    }

    /// A process ends: what it did wrong until now counts.
    pub(super) fn testify(&mut self, pid: u32, now: u64) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        if self.suspects.is_empty() || process.accepts {
            return;
        }
        for (cookie, hold) in &process.holds {
            let suspects = self.suspects.get(cookie).filter(|suspects| !suspects.told);
            let since = suspects.and_then(|suspects| suspects.since.get(&pid));
            if since.is_some_and(|since| now.saturating_sub(*since) >= PATIENCE_NS) && self.of_ended.len() < ENDED {
                let evidence = Evidence {
                    who: holder(pid, hold.fd(), process.comm),
                    other: process.parent.unwrap_or(holder(0, UNKNOWN_FD, [0; 16])),
                    since_ns: now.saturating_sub(hold.since_ns),
                };
                self.of_ended.push((*cookie, evidence));
            }
        }
    }

    /// What [`Self::tick`] is about to find something wrong with. The kernel may have skipped the program that would have
    /// seen it closed: /proc must say the same.
    pub fn accused(&self, now: u64) -> Vec<Held> {
        let left_behind = self.late_left_behind(now).into_iter();
        let of_sockets = left_behind.flat_map(|cookie| {
            let holders = self.sockets.get(&cookie).map(|socket| &socket.holders);
            holders.into_iter().flatten().map(move |pid| (*pid, cookie))
        });
        let of_listeners = self.suspects.iter().flat_map(|(listener, suspects)| {
            let late = suspects.since.iter().filter(move |(_, since)| is_late(**since, now));
            late.map(|(pid, _)| (*pid, *listener))
        });
        of_sockets
            .chain(of_listeners)
            .flat_map(|(pid, cookie)| {
                let hold = self.processes.get(&pid).and_then(|process| process.holds.get(&cookie));
                let fds = hold.into_iter().flat_map(|hold| &hold.fds);
                fds.map(move |fd| self.held(pid, cookie, *fd))
            })
            .take(LOOKED_AT)
            .collect()
    }

    /// It was closed, and nobody saw it.
    pub fn acquit(&mut self, held: &Held, now: u64, follow: &mut Vec<Event>) {
        let Some(process) = self.processes.get(&held.pid) else {
            return;
        };
        if process
            .holds
            .get(&held.cookie)
            .is_some_and(|hold| hold.fds.contains(&held.fd))
        {
            self.tell_closed(&by(held.pid, process.comm, now), held.cookie, held.fd, follow);
        }
    }

    /// What is known about those who ended. In doubt, when the kernel skipped programs lately, nothing: what they held /proc
    /// cannot show any more.
    pub fn of_ended(&mut self, doubt: bool) {
        for (listener, evidence) in self.of_ended.drain(..) {
            if !doubt && let Some(suspects) = self.suspects.get_mut(&listener) {
                suspects.ended.push(evidence);
            }
        }
    }

    /// What time shows: owners that say nothing, and findings. At the end what is not counted to the end is told, too.
    pub fn tick(&mut self, now: u64, end: bool, follow: &mut Vec<Event>) {
        for cookie in self.late_left_behind(now) {
            self.left_behind.remove(&cookie);
            let used = self.sockets.get(&cookie).and_then(|socket| socket.user);
            match used {
                Some(user) if user.used => self.kept_open(cookie, now, follow),
                Some(_) => self.settle(cookie, now, follow),
                None => {}
            }
        }
        let listeners: Vec<_> = self.suspects.keys().copied().collect();
        for listener in listeners {
            self.listener_held(listener, now, end, follow);
        }
        self.ghosts.retain(|_, ghost| ghost.until_ns > now);
    }

    fn late_left_behind(&self, now: u64) -> Vec<u64> {
        let left_behind = self.left_behind.iter().copied();
        left_behind
            .filter(|cookie| {
                let socket = self.sockets.get(cookie);
                socket.is_none_or(|socket| is_late(socket.left_ns, now))
            })
            .collect()
    }

    /// Children that ended a while ago, once: who still is there was not waited for.
    pub fn ended(&mut self, now: u64) -> Vec<Ended> {
        let (late, early) = self.ended.iter().partition(|ended| is_late(ended.since_ns, now));
        self.ended = early;
        late
    }

    /// A child that ended is still there, and this is its parent now. One that was given to another, as orphans are to
    /// PID 1, is not the fault of that.
    pub fn zombie(&self, ended: &Ended, parent: u32, now: u64) -> Option<Event> {
        const INIT: u32 = 1;
        if parent != ended.parent.pid || parent == INIT {
            return None;
        }
        let comm = self
            .processes
            .get(&parent)
            .map_or(ended.parent.comm, |process| process.comm);
        Some(found(
            quiet(now),
            finding::ZOMBIE,
            holder(ended.pid, UNKNOWN_FD, ended.comm),
            holder(parent, UNKNOWN_FD, comm),
            now.saturating_sub(ended.since_ns),
            1,
        ))
    }

    /// The user was done with it a while ago, and somebody still holds it.
    fn kept_open(&self, cookie: u64, now: u64, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get(&cookie) else {
            return;
        };
        let Some(user) = socket.user else { return };
        let mut holders: Vec<_> = socket.holders.iter().copied().collect();
        holders.sort_unstable();
        let (named, since) = (socket.speak(&quiet(now), false), now.saturating_sub(socket.left_ns));
        for pid in holders.into_iter().take(NAMED) {
            let Some(process) = self.processes.get(&pid) else {
                continue;
            };
            let Some(hold) = process.holds.get(&cookie) else {
                continue;
            };
            let what = match hold.how {
                how::ACCEPTED | how::OPENED => finding::NEVER_CLOSED,
                _ if hold.touched.is_none() => finding::KEPT_OPEN,
                _ => continue,
            };
            let who = holder(pid, hold.fd(), process.comm);
            follow.push(found(named, what, who, user.who, since, 1));
        }
    }

    /// Children of a listener's connections hold it: told once, of all of them.
    fn listener_held(&mut self, listener: u64, now: u64, end: bool, follow: &mut Vec<Event>) {
        let (Some(suspects), Some(socket)) = (self.suspects.get_mut(&listener), self.sockets.get(&listener)) else {
            return;
        };
        if suspects.told {
            return;
        }
        let late = suspects.since.iter().filter(|(_, since)| is_late(**since, now));
        let first = late
            .clone()
            .min_by_key(|(pid, since)| (**since, **pid))
            .map(|(pid, _)| *pid);
        let count = late.count() + suspects.ended.len();
        if count == 0 {
            return;
        }
        if suspects.late_ns == 0 {
            suspects.late_ns = now;
        }
        let grows = count > std::mem::replace(&mut suspects.counted, count);
        if grows && now - suspects.late_ns < COUNTED_NS && !end {
            return;
        }
        let of_living = first.and_then(|pid| {
            let process = self.processes.get(&pid)?;
            let hold = process.holds.get(&listener)?;
            Some(Evidence {
                who: holder(pid, hold.fd(), process.comm),
                other: process.parent.unwrap_or(holder(0, UNKNOWN_FD, [0; 16])),
                since_ns: now.saturating_sub(hold.since_ns),
            })
        });
        let Some(evidence) = of_living.or_else(|| suspects.ended.first().copied()) else {
            return;
        };
        follow.push(found(
            socket.speak(&quiet(now), false),
            finding::LISTENER_HELD,
            evidence.who,
            evidence.other,
            evidence.since_ns,
            u32::try_from(count).unwrap_or(u32::MAX),
        ));
        *suspects = Suspects {
            told: true,
            ..Suspects::default()
        };
    }
}

fn is_late(since_ns: u64, now: u64) -> bool {
    now.saturating_sub(since_ns) >= PATIENCE_NS
}

fn found(envelope: Envelope, what: u32, holder: Holder, other: Holder, since_ns: u64, count: u32) -> Event {
    let finding = Finding {
        holder,
        other,
        since_ns,
        what,
        count,
    };
    event(envelope, Detail::Finding(finding))
}
