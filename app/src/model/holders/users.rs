//! Who uses what: a socket changes hands when another process reads, writes or accepts, not when one lets go.

use socklife_abi::event::{Envelope, HandedOff, Holder, NO_FD, Touched, UNKNOWN, UNKNOWN_FD, handoff, how, touch};

use super::{
    Holders, event, holder,
    process::{Hold, Process},
    quiet,
    socket::{Socket, User},
};
use crate::event::{Detail, Event};

impl Holders {
    /// The process is the socket's user now.
    pub(super) fn uses(&mut self, pid: u32, envelope: &Envelope, fd: i32) {
        let execs = self.processes.get(&pid).map_or(0, |process| process.execs);
        if let Some(socket) = self.sockets.get_mut(&envelope.cookie) {
            socket.user = Some(User {
                who: holder(pid, fd.max(UNKNOWN_FD), envelope.comm),
                since_ns: envelope.time_ns,
                accepted: false,
                used: false,
                execs,
            });
        }
    }

    /// A process accepts from a listener: it uses it, alone or beside others.
    pub(super) fn accepts_from(&mut self, pid: u32, listener: u64, envelope: &Envelope, follow: &mut Vec<Event>) {
        let (Some(process), Some(socket)) = (self.processes.get(&pid), self.sockets.get_mut(&listener)) else {
            return;
        };
        // Its own business, whatever connections it serves.
        if let Some(suspects) = self.suspects.get_mut(&listener) {
            suspects.since.remove(&pid);
        }
        if !socket.acceptors.insert(pid) || socket.acceptors.len() > 1 {
            return;
        }
        let mut hold = match process.holds.get(&listener) {
            Some(hold) => hold.clone(),
            None => Hold::new(how::UNKNOWN, envelope.time_ns),
        };
        hold.touched = Some((envelope.time_ns, touch::ACCEPT));
        let user = used_by(pid, process, &hold, true);
        let before = socket.user.replace(user);
        if let Some(before) = before
            && before.who.pid != pid
        {
            let handed = handed(&before, user.who, &hold, process, socket.inode);
            follow.push(event(socket.speak(envelope, true), Detail::HandedOff(handed)));
        }
    }

    /// A process has no descriptor of the socket any more. That hands it to nobody.
    pub(super) fn let_go(&mut self, pid: u32, cookie: u64, now: u64) {
        if let Some(suspects) = self.suspects.get_mut(&cookie) {
            suspects.since.remove(&pid);
        }
        let Some(socket) = self.sockets.get_mut(&cookie) else {
            return;
        };
        socket.acceptors.remove(&pid);
        if !socket.is_connection() {
            // Of several that accept, the others go on.
            if socket.user.is_some_and(|user| user.who.pid == pid)
                && let Some(other) = socket.acceptors.iter().min()
                && let Some(process) = self.processes.get(other)
                && let Some(hold) = process.holds.get(&cookie)
            {
                socket.user = Some(used_by(*other, process, hold, true));
            }
            return;
        }
        let Some(user) = socket.user else { return };
        if socket.holders.is_empty() {
            self.left_behind.remove(&cookie);
        } else if user.who.pid == pid || (!user.used && !socket.holders.contains(&user.who.pid)) {
            socket.left_ns = now;
            self.left_behind.insert(cookie);
        }
    }

    pub(super) fn touched(&mut self, envelope: &Envelope, touched: &Touched, follow: &mut Vec<Event>) {
        let (cookie, what) = (envelope.cookie, touched.what);
        if envelope.pid == 0 || self.socket(envelope).is_none() {
            return;
        }
        self.has_inode(envelope, touched.inode);
        let pid = self.table_of(envelope.pid);
        let now = envelope.time_ns;
        let process = self.process(envelope);
        if process.holds.contains_key(&cookie) {
            process.numbered(cookie, touched.fd);
        } else if touched.fd != NO_FD {
            self.gain(pid, cookie, touched.fd, how::UNKNOWN, now);
        }
        let (Some(process), Some(socket)) = (self.processes.get_mut(&pid), self.sockets.get_mut(&cookie)) else {
            return;
        };
        let mut hold = match process.holds.get_mut(&cookie) {
            Some(hold) => {
                hold.touched.get_or_insert((now, what));
                hold.clone()
            }
            // io_uring keeps it, and not in the table of descriptors.
            None => Hold::new(how::UNKNOWN, now),
        };
        self.left_behind.remove(&cookie);
        let user = used_by(pid, process, &hold, true);
        let before = socket.user.replace(user);
        let Some(before) = before else { return };
        let handed = if before.who.pid != pid {
            // What it does now is what counts, where it comes back to it.
            let first = hold.touched.get_or_insert((now, what));
            first.1 = what;
            handed(&before, user.who, &hold, process, socket.inode)
        } else if process.execs > before.execs {
            HandedOff {
                through: NOBODY,
                how: handoff::EXEC,
                held_ns: UNKNOWN,
                first_ns: UNKNOWN,
                first: what,
                ..handed(&before, user.who, &hold, process, socket.inode)
            }
        } else {
            return;
        };
        let listener = socket.listener;
        follow.push(event(socket.speak(envelope, true), Detail::HandedOff(handed)));
        self.suspect(pid, listener, now);
    }

    /// The user let go a while ago without having used it, and one process is left with it: that one will use it.
    pub(super) fn settle(&mut self, cookie: u64, now: u64, follow: &mut Vec<Event>) {
        let Some(socket) = self.sockets.get_mut(&cookie) else {
            return;
        };
        let Some((pid, to, handed)) = alone(socket, |pid| self.processes.get(&pid)) else {
            return;
        };
        socket.user = Some(to);
        let listener = socket.listener;
        follow.push(event(socket.speak(&quiet(now), false), Detail::HandedOff(handed)));
        self.suspect(pid, listener, now);
    }
}

const NOBODY: Holder = Holder {
    pid: 0,
    fd: UNKNOWN_FD,
    comm: [0; 16],
};

/// The one process that holds it, as its user.
fn alone<'a>(socket: &Socket, process: impl Fn(u32) -> Option<&'a Process>) -> Option<(u32, User, HandedOff)> {
    let mut holders = socket.holders.iter();
    let (Some(pid), None) = (holders.next(), holders.next()) else {
        return None;
    };
    let process = process(*pid)?;
    let hold = process.holds.get(&socket.cookie())?;
    let user = used_by(*pid, process, hold, false);
    let handed = handed(&socket.user?, user.who, hold, process, socket.inode);
    Some((*pid, user, handed))
}

fn used_by(pid: u32, process: &Process, hold: &Hold, used: bool) -> User {
    User {
        who: holder(pid, hold.fd(), process.comm),
        since_ns: if is_dated(hold) { hold.since_ns } else { UNKNOWN },
        accepted: hold.how == how::ACCEPTED,
        used,
        execs: process.execs,
    }
}

/// It is known when it came.
fn is_dated(hold: &Hold) -> bool {
    !matches!(hold.how, how::BEFORE | how::UNKNOWN)
}

fn handed(from: &User, to: Holder, hold: &Hold, process: &Process, inode: u64) -> HandedOff {
    // Where `to` had it before `from`, it is handed back.
    let is_dated = is_dated(hold) && (from.since_ns == UNKNOWN || hold.since_ns >= from.since_ns);
    let (touched_ns, first) = hold.touched.unwrap_or((UNKNOWN, touch::NONE));
    HandedOff {
        from: from.who,
        to,
        through: match (hold.how, process.parent) {
            (how::INHERITED, Some(parent)) => parent,
            _ => NOBODY,
        },
        held_ns: if is_dated && from.since_ns != UNKNOWN {
            hold.since_ns - from.since_ns
        } else {
            UNKNOWN
        },
        first_ns: if is_dated && touched_ns != UNKNOWN {
            touched_ns.saturating_sub(hold.since_ns)
        } else {
            UNKNOWN
        },
        how: match hold.how {
            how::INHERITED if process.execs > 0 => handoff::EXEC,
            how::INHERITED => handoff::FORK,
            how::RECEIVED => handoff::FD_PASSING,
            how::ACCEPTED => handoff::ACCEPTED,
            how::OPENED => handoff::OPENED,
            _ => handoff::UNKNOWN,
        },
        first,
        inode,
        accepted: u32::from(from.accepted),
        reserved: 0,
    }
}
