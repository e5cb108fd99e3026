//! What is wrong with those who hold a socket, which only time shows.

use socklife_abi::event::{Envelope, Finding, Holder, UNKNOWN_FD, finding, how};

use super::{Ended, Holders, NAMED, PATIENCE_NS, User, by, event, handed, holder, quiet};
use crate::event::{Detail, Event};

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

impl Holders {
    /// What [`Self::tick`] is about to find something wrong with. The kernel may have skipped the program that would have
    /// seen it closed: /proc must say the same.
    pub fn accused(&self, now: u64) -> Vec<Held> {
        let mut accused = Vec::new();
        let left_behind = self.late_left_behind(now).into_iter();
        let of_sockets = left_behind.flat_map(|cookie| {
            let holders = self.sockets.get(&cookie).map(|socket| &socket.holders);
            holders.into_iter().flatten().map(move |pid| (*pid, cookie))
        });
        for (pid, cookie) in of_sockets.chain(self.late_suspects(now)) {
            let hold = self.processes.get(&pid).and_then(|process| process.holds.get(&cookie));
            let inode = self.sockets.get(&cookie).map_or(0, |socket| socket.inode);
            let fds = hold.into_iter().flat_map(|hold| &hold.fds);
            accused.extend(fds.map(|fd| Held {
                pid,
                cookie,
                fd: *fd,
                inode,
            }));
        }
        accused
    }

    /// It was closed, and nobody saw it.
    pub fn acquit(&mut self, held: &Held, now: u64, follow: &mut Vec<Event>) {
        let comm = self.processes.get(&held.pid).map_or([0; 16], |process| process.comm);
        self.tell_closed(&by(held.pid, comm, now), held.cookie, held.fd, follow);
    }

    /// Findings about those who ended. In doubt, when the kernel skipped programs lately, none: what they held /proc cannot
    /// show any more.
    pub fn of_ended(&mut self, doubt: bool, follow: &mut Vec<Event>) {
        if doubt {
            self.of_ended.clear();
        }
        follow.append(&mut self.of_ended);
    }

    /// What time shows: owners that say nothing, and findings.
    pub fn tick(&mut self, now: u64, follow: &mut Vec<Event>) {
        for cookie in self.late_left_behind(now) {
            self.left_behind.remove(&cookie);
            self.settle(cookie, now, follow);
        }
        for (pid, listener) in self.late_suspects(now) {
            self.listener_held(pid, listener, now, follow);
        }
    }

    fn late_left_behind(&self, now: u64) -> Vec<u64> {
        let left_behind = self.left_behind.iter().copied();
        left_behind
            .filter(|cookie| {
                let socket = self.sockets.get(cookie);
                socket.is_none_or(|socket| now.saturating_sub(socket.left_ns) >= PATIENCE_NS)
            })
            .collect()
    }

    fn late_suspects(&self, now: u64) -> Vec<(u32, u64)> {
        let suspects = self.suspects.iter();
        suspects
            .filter(|(_, since)| now.saturating_sub(**since) >= PATIENCE_NS)
            .map(|(suspect, _)| *suspect)
            .collect()
    }

    /// Children that ended a while ago, once: who still is there was not waited for.
    pub fn ended(&mut self, now: u64) -> Vec<Ended> {
        let (late, early) = self
            .ended
            .iter()
            .partition(|ended| now.saturating_sub(ended.since_ns) >= PATIENCE_NS);
        self.ended = early;
        late
    }

    /// A child that ended is still there, and this is its parent now.
    pub fn zombie(&self, ended: &Ended, parent: u32, now: u64) -> Event {
        let comm = match self.processes.get(&parent) {
            Some(process) => process.comm,
            None if parent == ended.parent.pid => ended.parent.comm,
            None => [0; 16],
        };
        found(
            quiet(now),
            finding::ZOMBIE,
            holder(ended.pid, UNKNOWN_FD, ended.comm),
            holder(parent, UNKNOWN_FD, comm),
            now.saturating_sub(ended.since_ns),
        )
    }

    /// The user is gone for a while, and somebody still holds it.
    fn settle(&mut self, cookie: u64, now: u64, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get_mut(&cookie) else {
            return;
        };
        let Some(user) = socket.user else { return };
        let mut holders: Vec<_> = socket.holders.iter().copied().collect();
        holders.sort_unstable();
        if !user.used {
            // It was given away by somebody who did nothing with it: whoever has it will use it.
            if let [pid] = holders[..]
                && let Some(process) = self.processes.get(&pid)
                && let Some(hold) = process.holds.get(&cookie)
            {
                let fd = hold.fds.first().copied().unwrap_or(UNKNOWN_FD);
                let to = holder(pid, fd, process.comm);
                let handed = handed(&user, to, hold, process.execs, socket.inode);
                socket.user = Some(User {
                    who: to,
                    since_ns: hold.since_ns,
                    accepted: false,
                    used: false,
                    execs: process.execs,
                });
                let listener = socket.listener;
                follow.push(event(socket.speak(&quiet(now), false), Detail::HandedOff(handed)));
                self.suspect(pid, listener, now);
            }
            return;
        }
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
            let fd = hold.fds.first().copied().unwrap_or(UNKNOWN_FD);
            follow.push(found(named, what, holder(pid, fd, process.comm), user.who, since));
        }
    }

    pub(super) fn listener_held(&mut self, pid: u32, listener: u64, now: u64, follow: &mut Vec<Event>) {
        self.suspects.remove(&(pid, listener));
        let (Some(process), Some(socket)) = (self.processes.get(&pid), self.sockets.get(&listener)) else {
            return;
        };
        let Some(hold) = process.holds.get(&listener) else {
            return;
        };
        let named = socket.speak(&quiet(now), false);
        let fd = hold.fds.first().copied().unwrap_or(UNKNOWN_FD);
        follow.push(found(
            named,
            finding::LISTENER_HELD,
            holder(pid, fd, process.comm),
            process.parent.unwrap_or(holder(0, UNKNOWN_FD, [0; 16])),
            now.saturating_sub(hold.since_ns),
        ));
    }
}

fn found(envelope: Envelope, what: u32, holder: Holder, other: Holder, since_ns: u64) -> Event {
    let finding = Finding {
        holder,
        other,
        since_ns,
        what,
        reserved: 0,
    };
    event(envelope, Detail::Finding(finding))
}
