//! Who holds what: descriptors come, go, and are copied.

use std::{collections::HashMap, ops::RangeInclusive};

use socklife_abi::{
    event::{EXECUTED_WORDS, Envelope, FdClosed, FdOpened, Inherited, NO_FD, UNKNOWN_DEPTH, UNKNOWN_FD, how},
    program::Program,
};

use super::{
    Asked, Ghost, HOLDS, Held, Holders, LONG_NS, Look, TOLD, by, event, findings::ENDED, holder, process::Hold,
};
use crate::event::{Detail, Event};

impl Holders {
    /// One more descriptor, in the books of the process and of the socket.
    pub(super) fn gain(&mut self, pid: u32, cookie: u64, fd: i32, way: u32, now: u64) {
        let (Some(process), Some(socket)) = (self.processes.get_mut(&pid), self.sockets.get_mut(&cookie)) else {
            return;
        };
        let more = process.hold(cookie, fd, way, now);
        socket.descriptors += u32::from(more);
        self.holds += usize::from(socket.holders.insert(pid));
    }

    /// It was bound, connected, or made a listener: whoever does that has it.
    pub(super) fn opened(&mut self, envelope: &Envelope, fd: i32, inode: u64, anew: bool) {
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        self.has_inode(envelope, inode);
        let (pid, cookie) = (self.table_of(envelope.pid), envelope.cookie);
        let process = self.process(envelope);
        let held = process.holds.contains_key(&cookie);
        if held {
            process.numbered(cookie, fd);
        } else if fd != NO_FD {
            self.gain(pid, cookie, fd, how::OPENED, envelope.time_ns);
        }
        // A listener's user is not who calls listen(2) again, but who accepts.
        let used = self.sockets.get(&cookie).is_some_and(|socket| socket.user.is_some());
        if anew || !(held || used) {
            self.uses(pid, envelope, fd);
        }
    }

    pub(super) fn accepted(&mut self, envelope: &Envelope, fd: i32, listener: u64, follow: &mut Vec<Event>) {
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        let pid = self.table_of(envelope.pid);
        self.process(envelope).accepts = true;
        self.gain(pid, envelope.cookie, fd, how::ACCEPTED, envelope.time_ns);
        self.uses(pid, envelope, fd);
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
            socket.listener = listener;
            if let Some(user) = &mut socket.user {
                user.accepted = true;
            }
        }
        self.accepts_from(pid, listener, envelope, follow);
    }

    /// How the process came to the descriptor; `None` where it is known to have it.
    pub(super) fn fd_opened(&mut self, envelope: &Envelope, opened: &FdOpened, follow: &mut Vec<Event>) -> Option<u32> {
        let (fd, cookie) = (opened.fd, envelope.cookie);
        let new = !self.sockets.contains_key(&cookie);
        let lost_ns = self.lost_ns;
        let socket = self.socket(envelope)?;
        // Of what is older, or where something was lost, others may have it who are not known.
        let is_sure = !new && socket.since_ns > lost_ns;
        self.has_inode(envelope, opened.inode);
        let pid = self.table_of(envelope.pid);
        let process = self.process(envelope);
        let stood = process.fds.get(&fd).copied();
        if stood == Some(cookie) {
            return None;
        }
        let way = match process.holds.get(&cookie) {
            // accept(2) gives it its number after it was told of.
            Some(hold) if hold.how == how::ACCEPTED && hold.fds.contains(&UNKNOWN_FD) => hold.how,
            _ if opened.how == how::RECEIVED => opened.how,
            Some(_) => how::DUPLICATED,
            // Of what? It had one, and nobody knows since when.
            None if opened.how == how::DUPLICATED => how::UNKNOWN,
            None if is_sure => how::RECEIVED,
            None => how::UNKNOWN,
        };
        if let Some(old) = stood {
            if envelope.via == Program::DupKprobe as u16 {
                process.replaced.push((old, fd));
            } else {
                // That it was closed nobody saw.
                self.tell_closed(envelope, old, fd, follow);
            }
        }
        self.gain(pid, cookie, fd, way, envelope.time_ns);
        if let Some(user) = self.sockets.get_mut(&cookie).and_then(|socket| socket.user.as_mut())
            && way != how::DUPLICATED
            && user.who.pid == pid
            && user.who.fd == UNKNOWN_FD
        {
            user.who.fd = fd;
        }
        Some(way)
    }

    /// The descriptor, and how many are left; `None` where it was told already.
    pub(super) fn fd_closed(&mut self, envelope: &Envelope, fd: i32) -> Option<(i32, u32)> {
        let cookie = envelope.cookie;
        let Some(socket) = self.sockets.get(&cookie) else {
            return Some((fd, UNKNOWN_DEPTH));
        };
        let blind = socket.blind;
        let pid = self.table_of(envelope.pid);
        let fd = match self.processes.get_mut(&pid) {
            Some(process) if fd == UNKNOWN_FD => {
                let replaced = process.replaced.iter().position(|(of, _)| *of == cookie);
                replaced.map_or(fd, |place| process.replaced.swap_remove(place).1)
            }
            _ => fd,
        };
        match self.close(envelope, cookie, fd) {
            // Of one that is not followed.
            None if blind => Some((fd, UNKNOWN_DEPTH)),
            closed => closed,
        }
    }

    /// close_range(2).
    pub(super) fn range_closed(
        &mut self,
        envelope: &Envelope,
        range: RangeInclusive<u32>,
        follow: &mut Vec<Event>,
    ) -> Look {
        let pid = self.table_of(envelope.pid);
        let Some(process) = self.processes.get(&pid) else {
            return Look::Old;
        };
        let gone = process.descriptors(|fd| u32::try_from(fd).is_ok_and(|fd| range.contains(&fd)));
        let is_unsure = !process.descriptors(|fd| fd == UNKNOWN_FD).is_empty();
        if is_unsure {
            self.unsure.insert(pid);
        }
        if gone.is_empty() && !is_unsure {
            return Look::Old;
        }
        for (cookie, fd) in gone {
            self.tell_closed(envelope, cookie, fd, follow);
        }
        Look::Tell
    }

    /// Closes, and tells of it as if a hook had.
    pub(super) fn tell_closed(&mut self, envelope: &Envelope, cookie: u64, fd: i32, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get(&cookie) else {
            return;
        };
        let (named, inode) = (socket.speak(envelope, envelope.pid != 0), socket.inode);
        if let Some((fd, left)) = self.close(envelope, cookie, fd) {
            follow.push(event(named, Detail::FdClosed(FdClosed { fd, left, inode })));
        }
    }

    fn close(&mut self, envelope: &Envelope, cookie: u64, fd: i32) -> Option<(i32, u32)> {
        let pid = self.table_of(envelope.pid);
        let (fd, gone) = self.processes.get_mut(&pid)?.drop_fd(cookie, fd)?;
        let socket = self.sockets.get_mut(&cookie)?;
        socket.descriptors = socket.descriptors.saturating_sub(1);
        let left = if socket.blind {
            UNKNOWN_DEPTH
        } else {
            socket.descriptors
        };
        if gone.is_some() {
            self.holds -= usize::from(socket.holders.remove(&pid));
            self.let_go(pid, cookie, envelope.time_ns);
        }
        Some((fd, left))
    }

    /// Nobody holds it any more. Whoever is thought to, closed it unseen.
    pub(super) fn last_close(&mut self, envelope: &Envelope) {
        let cookie = envelope.cookie;
        let Some(socket) = self.sockets.remove(&cookie) else {
            return;
        };
        for pid in &socket.holders {
            if let Some(process) = self.processes.get_mut(pid) {
                process.drop_hold(cookie);
            }
        }
        self.holds -= socket.holders.len();
        self.left_behind.remove(&cookie);
        self.suspects.remove(&cookie);
        // The kernel goes on with it for a while.
        if (socket.born() != 0 || socket.lives() != 0) && self.ghosts.len() < self.room {
            let ghost = Ghost {
                born: socket.born(),
                lives: socket.lives(),
                until_ns: envelope.time_ns + LONG_NS,
            };
            self.ghosts.insert(cookie, ghost);
        }
    }

    pub(super) fn forked(&mut self, envelope: &Envelope, child: u32, shared: bool, follow: &mut Vec<Event>) -> Look {
        let parent = self.table_of(envelope.pid);
        let forker = holder(envelope.pid, UNKNOWN_FD, envelope.comm);
        // It was there already when what is older was looked for, a moment later.
        if let Some(known) = self.processes.get_mut(&child)
            && envelope.time_ns < known.seen_ns
        {
            known.parent = Some(forker);
            return Look::Tell;
        }
        // A number that is used again: its former process ended unseen.
        self.forget(child, envelope, follow);
        let Some(of) = self.processes.get(&parent) else {
            return Look::Old;
        };
        if of.holds.is_empty() {
            return Look::Old;
        }
        if shared {
            self.shared.insert(child, parent);
            return Look::Tell;
        }
        if self.holds + of.holds.len() > HOLDS * self.room {
            self.full += 1;
            for cookie in of.holds.keys() {
                if let Some(socket) = self.sockets.get_mut(cookie) {
                    socket.blind = true;
                }
            }
            return Look::Tell;
        }
        let new = of.fork(forker, envelope.time_ns);
        let mut held: Vec<_> = new
            .holds
            .iter()
            .map(|(cookie, hold)| (hold.fd(), *cookie, hold.count()))
            .collect();
        held.sort_unstable();
        self.processes.insert(child, new);
        for (_, cookie, count) in &held {
            self.copied(child, *cookie, *count);
        }
        let sockets = u32::try_from(held.len()).unwrap_or(u32::MAX);
        for (fd, cookie, _) in held.into_iter().take(TOLD) {
            let Some(socket) = self.sockets.get(&cookie) else {
                continue;
            };
            let inherited = Inherited {
                child,
                fd,
                sockets,
                holders: if socket.blind {
                    UNKNOWN_DEPTH
                } else {
                    socket.descriptors
                },
            };
            follow.push(event(socket.speak(envelope, true), Detail::Inherited(inherited)));
        }
        Look::Tell
    }

    /// A process has a copy of so many descriptors, in the socket's book.
    fn copied(&mut self, pid: u32, cookie: u64, count: usize) {
        if let Some(socket) = self.sockets.get_mut(&cookie) {
            socket.descriptors += u32::try_from(count).unwrap_or(0);
            self.holds += usize::from(socket.holders.insert(pid));
        }
    }

    /// Another program: the descriptors marked close-on-exec are gone, which not every kernel tells one by one.
    pub(super) fn executed(
        &mut self,
        envelope: &Envelope,
        open: &[u64; EXECUTED_WORDS],
        follow: &mut Vec<Event>,
    ) -> Look {
        let pid = envelope.pid;
        // A table that was shared is its own now (`unshare_files`).
        if let Some(other) = self.shared.remove(&pid)
            && let Some(process) = self.processes.get(&other)
        {
            let copy = process.fork(holder(other, UNKNOWN_FD, process.comm), envelope.time_ns);
            let held: Vec<_> = copy
                .holds
                .iter()
                .map(|(cookie, hold)| (*cookie, hold.count()))
                .collect();
            self.processes.insert(pid, copy);
            for (cookie, count) in held {
                self.copied(pid, cookie, count);
            }
        }
        let Some(process) = self.processes.get_mut(&pid) else {
            return Look::Old;
        };
        process.execs += 1;
        process.comm = envelope.comm;
        process.replaced.clear();
        if process.holds.is_empty() {
            return Look::Old;
        }
        let is_told = |fd: i32| usize::try_from(fd).is_ok_and(|fd| fd / 64 < open.len());
        let is_open = |fd: i32| usize::try_from(fd).is_ok_and(|fd| open[fd / 64] & (1 << (fd % 64)) != 0);
        let mut gone = process.descriptors(|fd| is_told(fd) && !is_open(fd));
        // What was told to be closed without its number is among them.
        gone.retain(|(cookie, fd)| process.forget_fd(*cookie, *fd));
        if !process.descriptors(|fd| !is_told(fd)).is_empty() {
            self.unsure.insert(pid);
        }
        for (cookie, fd) in gone {
            self.tell_closed(envelope, cookie, fd, follow);
        }
        Look::Tell
    }

    pub(super) fn exited(&mut self, envelope: &Envelope, follow: &mut Vec<Event>) -> Look {
        let pid = envelope.pid;
        if self.shared.remove(&pid).is_some() {
            return Look::Tell;
        }
        let heir = self
            .shared
            .iter()
            .find(|(_, table)| **table == pid)
            .map(|(heir, _)| *heir);
        if let Some(heir) = heir {
            self.inherit_table(pid, heir);
            return Look::Tell;
        }
        let Some(process) = self.processes.get(&pid) else {
            return Look::Old;
        };
        let held = !process.holds.is_empty();
        if let Some(parent) = process.parent
            && self.ended.len() < ENDED
        {
            self.ended.push(super::Ended {
                pid,
                comm: process.comm,
                parent,
                since_ns: envelope.time_ns,
            });
        }
        self.testify(pid, envelope.time_ns);
        self.forget(pid, envelope, follow);
        if held { Look::Tell } else { Look::Old }
    }

    /// The table of a process that ended is used by another.
    fn inherit_table(&mut self, pid: u32, heir: u32) {
        self.shared.remove(&heir);
        for table in self.shared.values_mut().filter(|table| **table == pid) {
            *table = heir;
        }
        if let Some(process) = self.processes.remove(&pid) {
            for cookie in process.holds.keys() {
                if let Some(socket) = self.sockets.get_mut(cookie) {
                    socket.holders.remove(&pid);
                    socket.holders.insert(heir);
                    if socket.acceptors.remove(&pid) {
                        socket.acceptors.insert(heir);
                    }
                    if let Some(user) = &mut socket.user
                        && user.who.pid == pid
                    {
                        user.who.pid = heir;
                    }
                }
            }
            self.processes.insert(heir, process);
        }
    }

    /// A process is gone, and so is all that it held.
    fn forget(&mut self, pid: u32, envelope: &Envelope, follow: &mut Vec<Event>) {
        self.shared.remove(&pid);
        self.unsure.remove(&pid);
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let by = Envelope {
            pid,
            tid: if envelope.pid == pid { envelope.tid } else { pid },
            comm: process.comm,
            ..*envelope
        };
        for (cookie, fd) in process.all() {
            self.tell_closed(&by, cookie, fd, follow);
        }
        self.processes.remove(&pid);
    }

    /// Processes whose descriptors must be looked at, with what is believed of them: events alone do not tell what they
    /// closed. No more than so many, each once.
    pub fn unsure(&mut self, most: usize, now: u64) -> Vec<Asked> {
        let pids: Vec<_> = self.unsure.iter().copied().take(most).collect();
        pids.into_iter()
            .filter_map(|pid| {
                self.unsure.remove(&pid);
                let process = self.processes.get(&pid)?;
                let held = process.all().into_iter().map(|(cookie, fd)| self.held(pid, cookie, fd));
                Some(Asked {
                    pid,
                    time_ns: now,
                    held: held.collect(),
                })
            })
            .collect()
    }

    pub(super) fn held(&self, pid: u32, cookie: u64, fd: i32) -> Held {
        let inode = self.sockets.get(&cookie).map_or(0, |socket| socket.inode);
        Held { pid, cookie, fd, inode }
    }

    /// These descriptors of a process are sockets, with their inodes, at this time: what else it was thought to hold when
    /// that was asked is closed.
    pub fn has_only(&mut self, asked: &Asked, sockets: &HashMap<i32, u64>, now: u64, follow: &mut Vec<Event>) {
        let pid = asked.pid;
        for held in &asked.held {
            let Some(process) = self.processes.get(&pid) else {
                return;
            };
            let is_believed = |hold: &Hold| hold.fds.contains(&held.fd) && hold.since_ns <= asked.time_ns;
            if !process.holds.get(&held.cookie).is_some_and(is_believed) {
                continue;
            }
            let is_gone = if held.fd == UNKNOWN_FD {
                // One whose number nobody knew is what else has the socket's inode; without an inode nobody knows.
                let known = |fd: &i32| process.fds.get(fd) == Some(&held.cookie);
                held.inode != 0 && !sockets.iter().any(|(fd, of)| *of == held.inode && !known(fd))
            } else {
                let inode = sockets.get(&held.fd);
                inode.is_none() || (held.inode != 0 && inode != Some(&held.inode))
            };
            if is_gone {
                let comm = process.comm;
                self.tell_closed(&by(pid, comm, now), held.cookie, held.fd, follow);
            }
        }
    }
}
