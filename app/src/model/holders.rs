//! Who holds which socket, and who uses it. Facts in, facts completed and conclusions out.
//!
//! A *holder* is a descriptor of a process; a socket ends with its last one. The *user* is the process that reads and
//! writes, or until somebody does, the one that accepted or opened it. fork(2) copies what the parent holds: the copy is
//! made here, not in the kernel, from what is known of the parent.

mod findings;
mod process;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use bytemuck::Zeroable as _;
use socklife_abi::event::{
    BORN_BEFORE, EXECUTED_WORDS, Envelope, FdClosed, HandedOff, Holder, Inherited, Kind, Touched, UNKNOWN,
    UNKNOWN_DEPTH, UNKNOWN_FD, handoff, how, touch,
};

use crate::event::{Detail, Event, HOLDERS};
pub use findings::Held;
use process::{Hold, Process};
use socket::{Socket, User};

/// Something that lasts shorter is no finding: a parent may close its copy after the child is done.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Inherited sockets that are told one by one, for each fork.
const TOLD: usize = 16;
/// Holders that a finding names, for each socket.
const NAMED: usize = 8;
/// Children that ended and may be zombies, at a time.
const ENDED: usize = 4096;

/// `via` of what no hook sent.
const NO_HOOK: u16 = u16::MAX;

/// What becomes of an event that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is worth telling.
    Tell,
    /// It says nothing that is not known.
    Old,
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Who.
    pub pid: u32,
    comm: [u8; 16],
    parent: Holder,
    since_ns: u64,
}

/// A descriptor that was there when the trace began.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Thread group.
    pub pid: u32,
    /// Its name.
    pub comm: [u8; 16],
    /// The descriptor.
    pub fd: i32,
}

/// The model.
#[derive(Debug)]
pub struct Holders {
    sockets: HashMap<u64, Socket>,
    processes: HashMap<u32, Process>,
    /// Processes that use the table of descriptors of another (`CLONE_FILES`).
    shared: HashMap<u32, u32>,
    /// Sockets that somebody holds whose user is gone.
    left_behind: HashSet<u64>,
    /// Children that serve a connection and hold the listener that it came from, with when that began.
    suspects: HashMap<(u32, u64), u64>,
    ended: Vec<Ended>,
    /// Findings about processes that ended, until it is known whether the kernel skipped something.
    of_ended: Vec<Event>,
    /// Whose descriptors must be looked at to know more.
    unsure: Vec<u32>,
    room: usize,
    full: u64,
}

impl Holders {
    /// Of no more than so many sockets.
    pub fn new(room: usize) -> Self {
        Self {
            sockets: HashMap::new(),
            processes: HashMap::new(),
            shared: HashMap::new(),
            left_behind: HashSet::new(),
            suspects: HashMap::new(),
            ended: Vec::new(),
            of_ended: Vec::new(),
            unsure: Vec::new(),
            room,
            full: 0,
        }
    }

    /// How many times a socket was not followed because there was no room.
    pub fn full(&self) -> u64 {
        self.full
    }

    /// A socket that is older than the trace, and who holds it.
    pub fn before(&mut self, envelope: Envelope, inode: u64, listens: bool, holders: &[Before]) {
        // What an event told of meanwhile is newer.
        if envelope.cookie == 0 || self.sockets.contains_key(&envelope.cookie) || !self.has_room() {
            return;
        }
        let mut socket = Socket::new(Envelope {
            flags: envelope.flags | BORN_BEFORE,
            ..envelope
        });
        socket.listens = listens;
        socket.inode = inode;
        self.sockets.insert(envelope.cookie, socket);
        for holder in holders {
            let process = self
                .processes
                .entry(holder.pid)
                .or_insert_with(|| Process::new(holder.comm));
            process.seen_ns = envelope.time_ns;
            process.hold(envelope.cookie, holder.fd, how::BEFORE, envelope.time_ns);
            self.joined(holder.pid, envelope.cookie);
        }
        // Of several nobody knows who uses it.
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie)
            && let [first, others @ ..] = holders
            && others.iter().all(|other| other.pid == first.pid)
        {
            socket.user = Some(User {
                who: holder(first.pid, first.fd, first.comm),
                since_ns: UNKNOWN,
                accepted: false,
                used: false,
                execs: 0,
            });
        }
    }

    /// Takes an event in, completes it, and appends what follows from it.
    pub fn see(&mut self, event: &mut Event, follow: &mut Vec<Event>) -> Look {
        if let Some(socket) = self.sockets.get(&event.envelope.cookie) {
            socket.recall(&mut event.envelope);
            // A listener's totals say it themselves.
            if event.kind() != Kind::Listener {
                event.envelope.flags |= socket.born();
            }
        }
        let envelope = event.envelope;
        match &mut event.detail {
            Detail::Listening(listening) => {
                self.opened(&envelope, listening.fd);
                if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
                    socket.listens = true;
                }
            }
            Detail::Connect(_) => self.opened(&envelope, UNKNOWN_FD),
            Detail::Accepted(accepted) => self.accepted(&envelope, accepted.fd, accepted.queues.listener),
            Detail::FdOpened(opened) => {
                let Some(how) = self.fd_opened(&envelope, opened.fd) else {
                    return Look::Old;
                };
                opened.how = how;
                self.numbered(&envelope, opened.inode);
            }
            Detail::FdClosed(closed) => {
                self.numbered(&envelope, closed.inode);
                let Some((fd, left)) = self.fd_closed(&envelope, closed.fd, follow) else {
                    return Look::Old;
                };
                closed.fd = fd;
                closed.left = left;
            }
            Detail::FdsClosed(closed) => {
                let pid = self.table_of(envelope.pid);
                let range = i64::from(closed.first)..=i64::from(closed.last);
                let gone = self.processes.get(&pid).map_or_else(Vec::new, |process| {
                    process.descriptors(|fd| range.contains(&i64::from(fd)))
                });
                if gone.is_empty() {
                    return Look::Old;
                }
                for (cookie, fd) in gone {
                    self.tell_closed(&envelope, cookie, fd, follow);
                }
            }
            Detail::LastClose(_) => self.last_close(&envelope, follow),
            Detail::Touched(touched) => self.touched(&envelope, touched, follow),
            Detail::Forked(forked) => {
                let (child, shared) = (forked.child, forked.shared != 0);
                return self.forked(&envelope, child, shared, follow);
            }
            Detail::Executed(executed) => {
                let open = executed.open;
                return self.executed(&envelope, &open, follow);
            }
            Detail::Exited(_) => return self.exited(&envelope, follow),
            _ => {}
        }
        Look::Tell
    }

    /// Processes whose descriptors must be looked at: events alone do not tell what they closed. Before this event, which
    /// may tell.
    pub fn unsure(&mut self, next: Option<&Event>) -> Vec<u32> {
        match next {
            Some(event) if event.kind() == Kind::Executed && self.unsure == [event.envelope.pid] => Vec::new(),
            _ => std::mem::take(&mut self.unsure),
        }
    }

    /// These descriptors of a process are sockets, with their inodes; what else it was thought to hold is closed.
    pub fn has_only(&mut self, pid: u32, sockets: &HashMap<i32, u64>, now: u64, follow: &mut Vec<Event>) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let comm = process.comm;
        let mut gone = process.descriptors(|fd| fd != UNKNOWN_FD && !sockets.contains_key(&fd));
        // One whose number nobody knew is what else has the socket's inode; without an inode nobody knows.
        for (cookie, _) in process.descriptors(|fd| fd == UNKNOWN_FD) {
            let inode = self.sockets.get(&cookie).map_or(0, |socket| socket.inode);
            let known = |fd: &i32| process.fds.get(fd) == Some(&cookie);
            if inode != 0 && !sockets.iter().any(|(fd, of)| *of == inode && !known(fd)) {
                gone.push((cookie, UNKNOWN_FD));
            }
        }
        for (cookie, fd) in gone {
            self.tell_closed(&by(pid, comm, now), cookie, fd, follow);
        }
    }

    fn has_room(&mut self) -> bool {
        let room = self.sockets.len() < self.room;
        self.full += u64::from(!room);
        room
    }

    /// The process whose table of descriptors this one uses: its own, as a rule.
    fn table_of(&self, pid: u32) -> u32 {
        self.shared.get(&pid).copied().unwrap_or(pid)
    }

    /// The socket of an event, with its newest four-tuple; `None` where it has no name or no room.
    fn socket(&mut self, envelope: &Envelope) -> Option<&mut Socket> {
        if envelope.cookie == 0 || (!self.sockets.contains_key(&envelope.cookie) && !self.has_room()) {
            return None;
        }
        let socket = self
            .sockets
            .entry(envelope.cookie)
            .or_insert_with(|| Socket::new(*envelope));
        socket.name(envelope);
        Some(socket)
    }

    /// The process of an event.
    fn process(&mut self, envelope: &Envelope) -> &mut Process {
        let pid = self.table_of(envelope.pid);
        let process = self.processes.entry(pid).or_insert_with(|| Process::new(envelope.comm));
        if pid == envelope.pid && envelope.comm != [0; 16] {
            process.comm = envelope.comm;
        }
        process
    }

    /// A process holds it, in the socket's book.
    fn joined(&mut self, pid: u32, cookie: u64) {
        if let Some(socket) = self.sockets.get_mut(&cookie) {
            socket.holders.insert(pid);
        }
    }

    /// The socket has this inode.
    fn numbered(&mut self, envelope: &Envelope, inode: u64) {
        if inode != 0
            && let Some(socket) = self.sockets.get_mut(&envelope.cookie)
        {
            socket.inode = inode;
        }
    }

    fn opened(&mut self, envelope: &Envelope, fd: i32) {
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        let pid = self.table_of(envelope.pid);
        let process = self.process(envelope);
        if process.holds.contains_key(&envelope.cookie) {
            return;
        }
        process.hold(envelope.cookie, fd, how::OPENED, envelope.time_ns);
        self.joined(pid, envelope.cookie);
        self.uses(pid, envelope, fd);
    }

    fn accepted(&mut self, envelope: &Envelope, fd: i32, listener: u64) {
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        let pid = self.table_of(envelope.pid);
        let process = self.process(envelope);
        process.accepts = true;
        process.hold(envelope.cookie, fd, how::ACCEPTED, envelope.time_ns);
        self.joined(pid, envelope.cookie);
        self.uses(pid, envelope, fd);
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
            socket.listener = listener;
            if let Some(user) = &mut socket.user {
                user.accepted = true;
            }
        }
        // It accepts itself: the listener is its own business.
        self.suspects.retain(|(suspect, _), _| *suspect != pid);
    }

    /// The process is the socket's user now.
    fn uses(&mut self, pid: u32, envelope: &Envelope, fd: i32) {
        let execs = self.processes.get(&pid).map_or(0, |process| process.execs);
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
            socket.user = Some(User {
                who: holder(pid, fd, envelope.comm),
                since_ns: envelope.time_ns,
                accepted: false,
                used: false,
                execs,
            });
        }
    }

    /// How the process came to the descriptor; `None` where it is known to have it.
    fn fd_opened(&mut self, envelope: &Envelope, fd: i32) -> Option<u32> {
        let new = !self.sockets.contains_key(&envelope.cookie);
        self.socket(envelope)?;
        let pid = self.table_of(envelope.pid);
        let cookie = envelope.cookie;
        let process = self.process(envelope);
        if process.fds.get(&fd) == Some(&cookie) {
            return None;
        }
        let way = match process.holds.get(&cookie) {
            // accept(2) gives it its number after it was told of.
            Some(hold) if hold.how == how::ACCEPTED && hold.fds.contains(&UNKNOWN_FD) => hold.how,
            Some(_) => how::DUPLICATED,
            None if new => how::UNKNOWN,
            None => how::RECEIVED,
        };
        // What stood there was replaced, and its own event follows.
        if let Some(old) = process.fds.get(&fd).copied() {
            self.drop_fd(pid, old, fd);
        }
        let process = self.process(envelope);
        process.hold(cookie, fd, way, envelope.time_ns);
        self.joined(pid, cookie);
        if way == how::DUPLICATED {
            return Some(way);
        }
        if let Some(user) = self.sockets.get_mut(&cookie).and_then(|socket| socket.user.as_mut())
            && user.who.pid == pid
            && user.who.fd == UNKNOWN_FD
        {
            user.who.fd = fd;
        }
        Some(way)
    }

    /// Takes a descriptor out of both books; which it was, and whether that was the process's last of this socket.
    fn drop_fd(&mut self, pid: u32, cookie: u64, fd: i32) -> Option<(i32, Option<Hold>)> {
        let (fd, hold) = self.processes.get_mut(&pid)?.drop_fd(cookie, fd)?;
        if hold.is_some()
            && let Some(socket) = self.sockets.get_mut(&cookie)
        {
            socket.holders.remove(&pid);
        }
        Some((fd, hold))
    }

    /// How many descriptors of the socket there are.
    fn descriptors(&self, cookie: u64) -> u32 {
        let Some(socket) = self.sockets.get(&cookie) else {
            return UNKNOWN_DEPTH;
        };
        let of = |pid: &u32| self.processes.get(pid)?.holds.get(&cookie).map(|hold| hold.fds.len());
        let count: usize = socket.holders.iter().filter_map(of).sum();
        u32::try_from(count).unwrap_or(UNKNOWN_DEPTH)
    }

    /// The descriptor, and how many are left; `None` where it was told already, or will be when that is known.
    fn fd_closed(&mut self, envelope: &Envelope, fd: i32, follow: &mut Vec<Event>) -> Option<(i32, u32)> {
        let cookie = envelope.cookie;
        if !self.sockets.contains_key(&cookie) {
            return Some((fd, UNKNOWN_DEPTH));
        }
        let pid = self.table_of(envelope.pid);
        let process = self.processes.get(&pid)?;
        let hold = process.holds.get(&cookie)?;
        // Which of several it was, the process itself must show.
        if fd == UNKNOWN_FD && hold.fds.len() > 1 {
            if !self.unsure.contains(&pid) {
                self.unsure.push(pid);
            }
            return None;
        }
        self.close(envelope, cookie, fd, follow)
    }

    /// Closes, and tells of it as if a hook had.
    fn tell_closed(&mut self, envelope: &Envelope, cookie: u64, fd: i32, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get(&cookie) else {
            return;
        };
        let (named, inode) = (socket.speak(envelope, envelope.pid != 0), socket.inode);
        let mut later = Vec::new();
        if let Some((fd, left)) = self.close(envelope, cookie, fd, &mut later) {
            follow.push(event(named, Detail::FdClosed(FdClosed { fd, left, inode })));
        }
        follow.append(&mut later);
    }

    fn close(&mut self, envelope: &Envelope, cookie: u64, fd: i32, follow: &mut Vec<Event>) -> Option<(i32, u32)> {
        let pid = self.table_of(envelope.pid);
        let now = envelope.time_ns;
        let (fd, gone) = self.drop_fd(pid, cookie, fd)?;
        let left = self.descriptors(cookie);
        if let Some(hold) = gone {
            self.suspects.remove(&(pid, cookie));
            self.let_go(pid, cookie, &hold, now, follow);
        }
        Some((fd, left))
    }

    /// A process has no descriptor of the socket any more.
    fn let_go(&mut self, pid: u32, cookie: u64, hold: &Hold, now: u64, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get_mut(&cookie) else {
            return;
        };
        let Some(user) = &mut socket.user else { return };
        if user.who.pid == pid {
            if !socket.holders.is_empty() {
                socket.left_ns = now;
                self.left_behind.insert(cookie);
            }
            return;
        }
        // Or it is no hand-off: somebody used it, or the user is still there.
        if user.used || hold.touched.is_some() || !self.left_behind.contains(&cookie) {
            return;
        }
        let (comm, execs) = match self.processes.get(&pid) {
            Some(process) => (process.comm, process.execs),
            None => ([0; 16], 0),
        };
        let to = holder(pid, hold.fds.first().copied().unwrap_or(UNKNOWN_FD), comm);
        let handed = handed(user, to, hold, execs, socket.inode);
        *user = User {
            who: to,
            since_ns: hold.since_ns,
            accepted: false,
            used: false,
            execs,
        };
        follow.push(event(socket.speak(&quiet(now), false), Detail::HandedOff(handed)));
        if socket.holders.is_empty() {
            self.left_behind.remove(&cookie);
        } else {
            socket.left_ns = now;
        }
    }

    /// Nobody holds it any more.
    fn last_close(&mut self, envelope: &Envelope, follow: &mut Vec<Event>) {
        let cookie = envelope.cookie;
        let Some(socket) = self.sockets.get(&cookie) else {
            return;
        };
        // Whoever is thought to hold it closed it unseen.
        let mut unseen: Vec<_> = socket.holders.iter().copied().collect();
        unseen.sort_unstable();
        for pid in unseen {
            let hold = self
                .processes
                .get_mut(&pid)
                .and_then(|process| process.drop_hold(cookie));
            if let Some(socket) = self.sockets.get_mut(&cookie) {
                socket.holders.remove(&pid);
            }
            if let Some(hold) = hold {
                self.let_go(pid, cookie, &hold, envelope.time_ns, follow);
            }
        }
        self.sockets.remove(&cookie);
        self.left_behind.remove(&cookie);
        self.suspects.retain(|(_, listener), _| *listener != cookie);
    }

    fn touched(&mut self, envelope: &Envelope, touched: &Touched, follow: &mut Vec<Event>) {
        let (cookie, what) = (envelope.cookie, touched.what);
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        self.numbered(envelope, touched.inode);
        let pid = self.table_of(envelope.pid);
        let now = envelope.time_ns;
        let process = self.process(envelope);
        let execs = process.execs;
        if !process.holds.contains_key(&cookie) {
            process.hold(cookie, UNKNOWN_FD, how::UNKNOWN, now);
        }
        let Some(hold) = process.holds.get_mut(&cookie) else {
            return;
        };
        let first = hold.touched.is_none();
        hold.touched.get_or_insert((now, what));
        let hold = hold.clone();
        self.joined(pid, cookie);
        let to = holder(pid, hold.fds.first().copied().unwrap_or(UNKNOWN_FD), envelope.comm);
        let Some(socket) = self.sockets.get_mut(&cookie) else {
            return;
        };
        let changes = match &socket.user {
            None => false,
            Some(user) if user.who.pid == pid => execs > user.execs,
            Some(_) => first,
        };
        let user = User {
            who: to,
            since_ns: hold.since_ns,
            accepted: false,
            used: true,
            execs,
        };
        match &mut socket.user {
            Some(old) if changes => {
                let mut handed = handed(old, to, &hold, execs, socket.inode);
                handed.first = what;
                if old.who.pid == pid {
                    handed.how = handoff::EXEC;
                    handed.held_ns = UNKNOWN;
                    handed.first_ns = UNKNOWN;
                }
                *old = user;
                let listener = socket.listener;
                follow.push(event(socket.speak(envelope, true), Detail::HandedOff(handed)));
                self.suspect(pid, listener, now);
            }
            Some(old) if old.who.pid == pid => {
                old.used = true;
                old.execs = execs;
            }
            Some(_) => {}
            empty => *empty = Some(user),
        }
        self.left_behind.remove(&cookie);
    }

    /// A child got a connection: it should not hold the listener that this came from.
    fn suspect(&mut self, pid: u32, listener: u64, now: u64) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let inherited = process
            .holds
            .get(&listener)
            .is_some_and(|hold| hold.how == how::INHERITED);
        if inherited && !process.accepts && self.suspects.len() < self.room {
            self.suspects.entry((pid, listener)).or_insert(now);
        }
    }

    fn forked(&mut self, envelope: &Envelope, child: u32, shared: bool, follow: &mut Vec<Event>) -> Look {
        let parent = self.table_of(envelope.pid);
        // It was there already when what is older was looked for, a moment later.
        if let Some(known) = self.processes.get_mut(&child)
            && envelope.time_ns < known.seen_ns
        {
            known.parent = Some(holder(envelope.pid, UNKNOWN_FD, envelope.comm));
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
        let new = of.fork(holder(envelope.pid, UNKNOWN_FD, envelope.comm), envelope.time_ns);
        let mut held: Vec<_> = new
            .holds
            .iter()
            .map(|(cookie, hold)| (hold.fds.clone(), *cookie))
            .collect();
        held.sort();
        self.processes.insert(child, new);
        for (_, cookie) in &held {
            self.joined(child, *cookie);
        }
        let sockets = u32::try_from(held.len()).unwrap_or(u32::MAX);
        for (fds, cookie) in held.iter().take(TOLD) {
            let holders = self.descriptors(*cookie);
            let Some(socket) = self.sockets.get(cookie) else {
                continue;
            };
            let inherited = Inherited {
                child,
                fd: fds.first().copied().unwrap_or(UNKNOWN_FD),
                sockets,
                holders,
            };
            follow.push(event(socket.speak(envelope, true), Detail::Inherited(inherited)));
        }
        Look::Tell
    }

    /// Another program: the descriptors marked close-on-exec are gone, which not every kernel tells one by one.
    fn executed(&mut self, envelope: &Envelope, open: &[u64; EXECUTED_WORDS], follow: &mut Vec<Event>) -> Look {
        let pid = envelope.pid;
        // A table that was shared is its own now (`unshare_files`).
        if let Some(other) = self.shared.remove(&pid)
            && let Some(process) = self.processes.get(&other)
        {
            let copy = process.clone();
            let cookies: Vec<_> = copy.holds.keys().copied().collect();
            self.processes.insert(pid, copy);
            for cookie in cookies {
                self.joined(pid, cookie);
            }
        }
        self.unsure.retain(|unsure| *unsure != pid);
        let Some(process) = self.processes.get_mut(&pid) else {
            return Look::Old;
        };
        process.execs += 1;
        process.comm = envelope.comm;
        if process.holds.is_empty() {
            return Look::Old;
        }
        let is_told = |fd: i32| usize::try_from(fd).is_ok_and(|fd| fd / 64 < open.len());
        let is_open = |fd: i32| usize::try_from(fd).is_ok_and(|fd| open[fd / 64] & (1 << (fd % 64)) != 0);
        let gone = process.descriptors(|fd| is_told(fd) && !is_open(fd));
        if !process.descriptors(|fd| fd != UNKNOWN_FD && !is_told(fd)).is_empty() {
            self.unsure.push(pid);
        }
        for (cookie, fd) in gone {
            self.tell_closed(envelope, cookie, fd, follow);
        }
        Look::Tell
    }

    fn exited(&mut self, envelope: &Envelope, follow: &mut Vec<Event>) -> Look {
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
        if let Some(parent) = process.parent
            && self.ended.len() < ENDED
        {
            self.ended.push(Ended {
                pid,
                comm: process.comm,
                parent,
                since_ns: envelope.time_ns,
            });
        }
        let suspected: Vec<_> = self
            .suspects
            .keys()
            .filter(|(suspect, _)| *suspect == pid)
            .copied()
            .collect();
        let held = !process.holds.is_empty();
        let mut findings = Vec::new();
        for (pid, listener) in suspected {
            self.listener_held(pid, listener, envelope.time_ns, &mut findings);
        }
        self.of_ended.append(&mut findings);
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
                }
            }
            self.processes.insert(heir, process);
        }
    }

    /// A process is gone, and so is all that it held.
    fn forget(&mut self, pid: u32, envelope: &Envelope, follow: &mut Vec<Event>) {
        self.shared.remove(&pid);
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let by = Envelope {
            pid,
            tid: if envelope.pid == pid { envelope.tid } else { pid },
            comm: process.comm,
            ..*envelope
        };
        for (cookie, fd) in process.descriptors(|_| true) {
            self.tell_closed(&by, cookie, fd, follow);
        }
        self.processes.remove(&pid);
    }
}

/// What a process did, as /proc shows.
fn by(pid: u32, comm: [u8; 16], now: u64) -> Envelope {
    Envelope {
        pid,
        tid: pid,
        comm,
        ..quiet(now)
    }
}

/// The time of what no hook sent and no task did.
fn quiet(now: u64) -> Envelope {
    Envelope {
        time_ns: now,
        via: NO_HOOK,
        ..Envelope::zeroed()
    }
}

fn holder(pid: u32, fd: i32, comm: [u8; 16]) -> Holder {
    Holder { pid, fd, comm }
}

fn handed(from: &User, to: Holder, hold: &Hold, execs: u32, inode: u64) -> HandedOff {
    HandedOff {
        inode,
        from: from.who,
        to,
        held_ns: match from.since_ns {
            UNKNOWN => UNKNOWN,
            since_ns => hold.since_ns.saturating_sub(since_ns),
        },
        first_ns: hold
            .touched
            .map_or(UNKNOWN, |(touched_ns, _)| touched_ns.saturating_sub(hold.since_ns)),
        how: match hold.how {
            how::INHERITED if execs > 0 => handoff::EXEC,
            how::INHERITED => handoff::FORK,
            how::RECEIVED => handoff::FD_PASSING,
            _ => handoff::UNKNOWN,
        },
        first: hold.touched.map_or(touch::NONE, |(_, what)| what),
        accepted: u32::from(from.accepted),
        reserved: 0,
    }
}

fn event(mut envelope: Envelope, detail: Detail) -> Event {
    envelope.kind = detail.kind() as u8;
    Event { envelope, detail }
}

/// The kinds that come from no hook, but are concluded here.
pub const MADE: u64 = Kind::set(&[Kind::Inherited, Kind::HandedOff, Kind::Finding]);

/// What must be asked for so that these can be told.
pub fn sources(kinds: u64) -> u64 {
    const FACTS: u64 = Kind::set(&[Kind::Listening, Kind::Connect, Kind::Accepted]);
    if kinds & (HOLDERS | MADE) == 0 {
        kinds
    } else {
        kinds | HOLDERS | FACTS
    }
}
