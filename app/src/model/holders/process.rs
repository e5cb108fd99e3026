//! What one process holds.

use std::collections::HashMap;

use socklife_abi::event::{Holder, UNKNOWN_FD, how};

/// One socket in one process.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Its descriptors; the one whose number nobody knows is `UNKNOWN_FD`.
    pub fds: Vec<i32>,
    /// How many of these are closed: it was seen, but not which.
    pub closed: usize,
    /// One of [`how`]: how it came to the first.
    pub how: u32,
    /// When.
    pub since_ns: u64,
    /// When the process first read or wrote, and which.
    pub touched: Option<(u64, u32)>,
}

impl Hold {
    /// How it came, and when.
    pub fn new(how: u32, since_ns: u64) -> Self {
        Self {
            fds: Vec::new(),
            closed: 0,
            how,
            since_ns,
            touched: None,
        }
    }

    /// How many descriptors it is.
    pub fn count(&self) -> usize {
        self.fds.len() - self.closed
    }

    /// The first descriptor.
    pub fn fd(&self) -> i32 {
        self.fds.first().copied().unwrap_or(UNKNOWN_FD)
    }

    /// It stands in no table that fork(2) copies: accept(2) is about to put it there, or io_uring keeps it elsewhere.
    fn is_apart(&self) -> bool {
        self.how == how::ACCEPTED && self.fds == [UNKNOWN_FD]
    }
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
    /// Descriptors that dup2(2) took for another file: that they are closed is told in a moment, without a number.
    pub replaced: Vec<(u64, i32)>,
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
            replaced: Vec::new(),
            execs: 0,
            accepts: false,
            seen_ns: 0,
        }
    }

    /// A descriptor. A number takes the place of one that nobody knew, unless it is known to be one more. False where it
    /// was known.
    pub fn hold(&mut self, cookie: u64, fd: i32, how: u32, since_ns: u64) -> bool {
        let hold = self.holds.entry(cookie).or_insert_with(|| Hold::new(how, since_ns));
        // It came while what is older was looked for, and an event says how.
        if hold.how == how::BEFORE && matches!(how, how::ACCEPTED | how::OPENED) {
            (hold.how, hold.since_ns) = (how, since_ns);
        }
        if fd == UNKNOWN_FD {
            let first = hold.fds.is_empty();
            if first {
                hold.fds.push(fd);
            }
            return first;
        }
        let is_more = matches!(how, how::DUPLICATED | how::RECEIVED);
        let mut more = false;
        if !hold.fds.contains(&fd) {
            match hold.fds.iter_mut().find(|known| **known == UNKNOWN_FD) {
                Some(unknown) if !is_more => *unknown = fd,
                _ => {
                    hold.fds.push(fd);
                    more = true;
                }
            }
        }
        self.fds.insert(fd, cookie);
        more
    }

    /// The number of a descriptor that nobody knew, where this is a new one.
    pub fn numbered(&mut self, cookie: u64, fd: i32) {
        if fd >= 0
            && !self.fds.contains_key(&fd)
            && let Some(hold) = self.holds.get_mut(&cookie)
            && let Some(unknown) = hold.fds.iter_mut().find(|known| **known == UNKNOWN_FD)
        {
            *unknown = fd;
            self.fds.insert(fd, cookie);
        }
    }

    /// One descriptor less: its number, where that is known, and what was held where it was the last. A number that is not
    /// known here is the one that nobody knew.
    pub fn drop_fd(&mut self, cookie: u64, fd: i32) -> Option<(i32, Option<Hold>)> {
        let hold = self.holds.get_mut(&cookie)?;
        let at = |wanted: i32| hold.fds.iter().position(|held| *held == wanted);
        let number = match at(fd).or_else(|| at(UNKNOWN_FD)) {
            // Nobody knows which, and one has no number that is known.
            Some(_) if fd == UNKNOWN_FD && hold.fds.len() > 1 => {
                hold.closed += 1;
                fd
            }
            Some(place) => {
                let held = hold.fds.remove(place);
                // Or another file stands there by now.
                if self.fds.get(&held) == Some(&cookie) {
                    self.fds.remove(&held);
                }
                if held == UNKNOWN_FD { fd } else { held }
            }
            None if fd != UNKNOWN_FD => return None,
            None if hold.fds.len() == 1 => hold.fds[0],
            None => {
                hold.closed += 1;
                fd
            }
        };
        // All but those that were closed already.
        let last = hold.fds.len() <= hold.closed || (fd == UNKNOWN_FD && number != UNKNOWN_FD);
        Some((number, if last { self.drop_hold(cookie) } else { None }))
    }

    /// This descriptor is not there any more: false where that it was closed was told without its number.
    pub fn forget_fd(&mut self, cookie: u64, fd: i32) -> bool {
        let Some(hold) = self.holds.get_mut(&cookie) else {
            return false;
        };
        if hold.closed == 0 {
            return true;
        }
        hold.closed -= 1;
        hold.fds.retain(|held| *held != fd);
        if self.fds.get(&fd) == Some(&cookie) {
            self.fds.remove(&fd);
        }
        false
    }

    /// All descriptors of the socket.
    pub fn drop_hold(&mut self, cookie: u64) -> Option<Hold> {
        let hold = self.holds.remove(&cookie)?;
        for fd in &hold.fds {
            if self.fds.get(fd) == Some(&cookie) {
                self.fds.remove(fd);
            }
        }
        Some(hold)
    }

    /// The descriptors that are wanted, with their sockets; in order, the unknown ones where all are.
    pub fn descriptors(&self, wanted: impl Fn(i32) -> bool) -> Vec<(u64, i32)> {
        let mut found: Vec<_> = self
            .holds
            .iter()
            .flat_map(|(cookie, hold)| hold.fds.iter().map(|fd| (*cookie, *fd)))
            .filter(|(_, fd)| wanted(*fd))
            .collect();
        found.sort_unstable_by_key(|(cookie, fd)| (*fd, *cookie));
        found
    }

    /// Everything, each as often as it is held.
    pub fn all(&self) -> Vec<(u64, i32)> {
        let mut found = Vec::new();
        for (cookie, hold) in &self.holds {
            if hold.closed == 0 {
                found.extend(hold.fds.iter().map(|fd| (*cookie, *fd)));
            } else {
                found.extend((0..hold.count()).map(|_| (*cookie, UNKNOWN_FD)));
            }
        }
        found.sort_unstable_by_key(|(cookie, fd)| (*fd, *cookie));
        found
    }

    /// The child of a fork.
    pub fn fork(&self, parent: Holder, now: u64) -> Self {
        let copied = self.holds.iter().filter(|(_, hold)| !hold.is_apart());
        let copied = copied.map(|(cookie, hold)| {
            let copy = Hold {
                fds: hold.fds.clone(),
                closed: hold.closed,
                ..Hold::new(how::INHERITED, now)
            };
            (*cookie, copy)
        });
        Self {
            parent: Some(parent),
            holds: copied.collect(),
            fds: self.fds.clone(),
            ..Self::new(self.comm)
        }
    }
}
