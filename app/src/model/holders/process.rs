//! What one process holds.

use std::collections::HashMap;

use socklife_abi::event::{Holder, UNKNOWN_FD, how};

/// One socket in one process.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Its descriptors; the one whose number nobody knows is `UNKNOWN_FD`.
    pub fds: Vec<i32>,
    /// One of [`how`]: how it came to the first.
    pub how: u32,
    /// When.
    pub since_ns: u64,
    /// When the process first read or wrote, and which.
    pub touched: Option<(u64, u32)>,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name.
    pub comm: [u8; 16],
    /// Who forked it, where that was seen.
    pub parent: Option<Holder>,
    /// What it holds, by cookie.
    pub holds: HashMap<u64, Hold>,
    /// The cookie behind each descriptor whose number is known.
    pub fds: HashMap<i32, u64>,
    /// How many programs it has run since it was seen.
    pub execs: u32,
    /// It has called accept(2).
    pub accepts: bool,
    /// When it was seen among what is older than the trace, or 0.
    pub seen_ns: u64,
}

impl Process {
    pub fn new(comm: [u8; 16]) -> Self {
        Self {
            comm,
            parent: None,
            holds: HashMap::new(),
            fds: HashMap::new(),
            execs: 0,
            accepts: false,
            seen_ns: 0,
        }
    }

    /// One more descriptor. A number takes the place of one that nobody knew, unless it is a duplicate.
    pub fn hold(&mut self, cookie: u64, fd: i32, how: u32, since_ns: u64) {
        let hold = self.holds.entry(cookie).or_insert_with(|| Hold {
            fds: Vec::with_capacity(1),
            how,
            since_ns,
            touched: None,
        });
        // It came while what is older was looked for, and an event says how.
        if hold.how == how::BEFORE && matches!(how, how::ACCEPTED | how::OPENED) {
            (hold.how, hold.since_ns) = (how, since_ns);
        }
        if fd == UNKNOWN_FD {
            if hold.fds.is_empty() {
                hold.fds.push(fd);
            }
            return;
        }
        if how != how::DUPLICATED
            && let Some(unknown) = hold.fds.iter_mut().find(|known| **known == UNKNOWN_FD)
        {
            *unknown = fd;
        } else if !hold.fds.contains(&fd) {
            hold.fds.push(fd);
        }
        self.fds.insert(fd, cookie);
    }

    /// One descriptor less: which, and what was held where it was the last. A number that is not known here is the one
    /// that nobody knew.
    pub fn drop_fd(&mut self, cookie: u64, fd: i32) -> Option<(i32, Option<Hold>)> {
        let hold = self.holds.get_mut(&cookie)?;
        let at = |wanted: i32| hold.fds.iter().position(|held| *held == wanted);
        let place = at(fd).or_else(|| at(UNKNOWN_FD)).or((fd == UNKNOWN_FD).then_some(0))?;
        let held = hold.fds[place];
        self.fds.remove(&held);
        let number = if held == UNKNOWN_FD { fd } else { held };
        if hold.fds.len() > 1 {
            hold.fds.remove(place);
            return Some((number, None));
        }
        Some((number, self.holds.remove(&cookie)))
    }

    /// All descriptors of the socket.
    pub fn drop_hold(&mut self, cookie: u64) -> Option<Hold> {
        let hold = self.holds.remove(&cookie)?;
        for fd in &hold.fds {
            self.fds.remove(fd);
        }
        Some(hold)
    }

    /// The descriptors that are wanted, with their sockets; in order, the unknown ones where all are.
    pub fn descriptors(&self, wanted: impl Fn(i32) -> bool) -> Vec<(u64, i32)> {
        let mut found: Vec<_> = self
            .holds
            .iter()
            .flat_map(|(cookie, hold)| hold.fds.iter().map(|fd| (*cookie, *fd)))
            .filter(|(_, fd)| *fd != UNKNOWN_FD && wanted(*fd))
            .collect();
        if wanted(UNKNOWN_FD) {
            let unknown = self.holds.iter().filter(|(_, hold)| hold.fds.contains(&UNKNOWN_FD));
            found.extend(unknown.map(|(cookie, _)| (*cookie, UNKNOWN_FD)));
        }
        found.sort_unstable_by_key(|(cookie, fd)| (*fd, *cookie));
        found
    }

    /// The child of a fork.
    pub fn fork(&self, parent: Holder, now: u64) -> Self {
        let copied = self.holds.iter().map(|(cookie, hold)| {
            let copy = Hold {
                fds: hold.fds.clone(),
                how: how::INHERITED,
                since_ns: now,
                touched: None,
            };
            (*cookie, copy)
        });
        Self {
            comm: self.comm,
            parent: Some(parent),
            holds: copied.collect(),
            fds: self.fds.clone(),
            execs: 0,
            accepts: false,
            seen_ns: 0,
        }
    }
}
