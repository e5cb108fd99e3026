//! What is said of a socket.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use socklife_abi::{
    event::state,
    socket::{IN_ACCEPT_QUEUE, Socket, UNKNOWN_IDLE, pending},
};

use super::queues::Queues;
use crate::{
    event::{address, names},
    holders::Holder,
};

/// What a row is made of.
pub trait Listed {
    /// The socket.
    fn socket(&self) -> &Socket;

    /// Its queues, where they were looked at and it can have data.
    fn queues(&self) -> Option<&Queues> {
        None
    }
}

impl Listed for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

/// A socket, as it is now.
pub struct Row<'a> {
    /// As the kernel side told it.
    pub socket: &'a Socket,
    /// What its queues hold.
    pub queues: Option<&'a Queues>,
    /// Every descriptor of it.
    pub holders: &'a [Holder],
}

impl Row<'_> {
    /// Address of this end.
    pub fn laddr(&self) -> IpAddr {
        address(self.socket.saddr, self.socket.family)
    }

    /// Address of the other end; a listener has none.
    pub fn raddr(&self) -> Option<IpAddr> {
        let raddr = address(self.socket.daddr, self.socket.family);
        (self.socket.dport != 0 || !raddr.is_unspecified()).then_some(raddr)
    }

    /// A listener.
    pub fn listens(&self) -> bool {
        u32::from(self.socket.state) == state::LISTEN
    }

    /// Its handshake is done, and accept(2) has not taken it.
    pub fn in_accept_queue(&self) -> bool {
        self.socket.flags & IN_ACCEPT_QUEUE != 0
    }

    /// Which timer runs; `None` for what is no connection.
    pub fn timer(&self) -> Option<&'static str> {
        let timer = self.socket.timer;
        (timer != pending::UNKNOWN).then(|| names::numbered(&pending::NAMES, timer.into()))
    }

    /// How long nothing went over it.
    pub fn idle(&self) -> Option<Duration> {
        let idle_ms = self.socket.idle_ms;
        (idle_ms != UNKNOWN_IDLE).then(|| Duration::from_millis(idle_ms))
    }

    /// Whose it is; nobody's without a socket.
    pub fn uid(&self) -> Option<u32> {
        (self.socket.inode != 0).then_some(self.socket.uid)
    }

    /// What belongs to a listener's port stands with it, in the order of a connection's life; what does not comes after,
    /// by the port that it went to.
    fn rank(&self, listened: &HashSet<(u32, u16)>) -> impl Ord + use<> {
        let Socket {
            key,
            sport,
            dport,
            netns,
            state,
            ..
        } = *self.socket;
        let (laddr, raddr) = (self.laddr(), self.raddr());
        if listened.contains(&(netns, sport)) {
            let stage = match u32::from(state) {
                state::LISTEN => 0,
                state::NEW_SYN_RECV => 1,
                _ if self.in_accept_queue() => 2,
                state::TIME_WAIT => 4,
                _ => 3,
            };
            (netns, false, sport, stage, Some(laddr), raddr, dport, key)
        } else {
            (netns, true, dport, 0, raddr, Some(laddr), sport, key)
        }
    }
}

/// A row for each socket; for those that this process holds, if one is named.
pub fn rows<'a, T: Listed>(listed: &'a [T], holders: &'a HashMap<u64, Vec<Holder>>, pid: Option<u32>) -> Vec<Row<'a>> {
    let sockets = listed.iter().map(Listed::socket);
    let listeners = sockets.filter(|socket| u32::from(socket.state) == state::LISTEN);
    let listened = listeners.map(|socket| (socket.netns, socket.sport)).collect();
    let mut rows: Vec<_> = listed
        .iter()
        .map(|listed| Row {
            socket: listed.socket(),
            queues: listed.queues(),
            holders: holders.get(&listed.socket().inode).map_or(&[], Vec::as_slice),
        })
        .filter(|row| pid.is_none_or(|pid| row.holders.iter().any(|holder| holder.process.pid == pid)))
        .collect();
    rows.sort_by_cached_key(|row| row.rank(&listened));
    rows
}
