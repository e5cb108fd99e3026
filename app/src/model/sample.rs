//! Events for tests: what would come of a listener on 127.0.0.1:80.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytemuck::Zeroable as _;
use socklife_abi::{
    event::{self as abi, Envelope, HAS_TASK, Queues, TOTALS, Total, UNKNOWN},
    program::Program,
};

use crate::event::{Detail, Event};

/// The namespace of all of them.
pub const NETNS: u32 = 4_026_532_281;

/// Where the listener is.
pub const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// An event at this end, of the connection with that cookie.
pub fn event_at(local: SocketAddr, time_ns: u64, cookie: u64, detail: Detail) -> Event {
    let words = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => bytemuck::cast(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    };
    Event {
        envelope: Envelope {
            time_ns,
            cookie,
            saddr: words(local.ip()),
            sport: local.port(),
            kind: detail.kind() as u8,
            via: Program::ALL[0] as u16,
            family: if local.is_ipv4() { 4 } else { 6 },
            netns: NETNS,
            ..Envelope::zeroed()
        },
        detail,
    }
}

/// An event at the listener on 127.0.0.1:80.
pub fn event(time_ns: u64, cookie: u64, detail: Detail) -> Event {
    event_at(HERE, time_ns, cookie, detail)
}

/// By this process.
pub fn by(mut event: Event, pid: u32, name: &str) -> Event {
    event.envelope.pid = pid;
    event.envelope.flags |= HAS_TASK;
    event.envelope.comm[..name.len()].copy_from_slice(name.as_bytes());
    event
}

/// A listener's queues, which hold 128.
pub fn queues(listener: u64, syn_queue: u32, accept_queue: u32) -> Queues {
    Queues {
        listener,
        syn_queue,
        syn_queue_limit: 128,
        accept_queue,
        accept_queue_limit: 128,
    }
}

/// listen(2), asking for 1024 and getting 128.
pub fn listening(asked: i32) -> Detail {
    Detail::Listening(abi::Listening {
        backlog_asked: asked,
        asked_known: 1,
        backlog: 128,
        fd: 3,
    })
}

/// A SYN was taken.
pub fn syn_queued(queues: Queues) -> Detail {
    Detail::SynQueued(abi::SynQueued { queues })
}

/// A SYN was refused.
pub fn syn_refused(queues: Queues, cause: u32) -> Detail {
    Detail::SynRefused(abi::SynRefused {
        queues,
        cause,
        reserved: 0,
    })
}

/// A handshake was completed.
pub fn accept_queued(queues: Queues, half_open_ns: u64) -> Detail {
    Detail::AcceptQueued(abi::AcceptQueued {
        queues,
        half_open_ns,
        deferred_ns: UNKNOWN,
        flags: 0,
        refusals: 0,
    })
}

/// accept(2) took a connection.
pub fn accepted(queues: Queues, accept_wait_ns: u64) -> Detail {
    Detail::Accepted(abi::Accepted {
        queues,
        accept_wait_ns,
        dead_ns: UNKNOWN,
        fd: -1,
        dead: 0,
        errno: 0,
        reserved: 0,
    })
}

/// accept(2) failed.
pub fn accept_failed(queues: Queues, errno: u32) -> Detail {
    Detail::AcceptFailed(abi::AcceptFailed {
        queues,
        limit: UNKNOWN,
        errno,
        fd: 3,
    })
}

/// A half-open connection ended.
pub fn half_open_ended(queues: Queues, cause: u32) -> Detail {
    Detail::HalfOpenEnded(abi::HalfOpenEnded {
        queues,
        half_open_ns: UNKNOWN,
        cause,
        synacks: 1,
        refusals: 0,
        deferred: 0,
    })
}

/// The listener was closed over a child.
pub fn never_accepted(listener: u64) -> Detail {
    Detail::NeverAccepted(abi::NeverAccepted {
        listener,
        accept_wait_ns: UNKNOWN,
    })
}

/// What was counted of a listener.
pub fn listener(queues: Queues, figures: &[(Total, u64)]) -> Detail {
    let mut totals = [0; TOTALS];
    for (total, count) in figures {
        totals[*total as usize] = *count;
    }
    Detail::Listener(abi::Listener {
        queues,
        totals,
        inode: 77,
        before: 0,
        fastopen_queue: 0,
        fastopen_queue_limit: 0,
        reserved: 0,
    })
}

/// The same of one that was there before the trace.
pub fn older_listener(queues: Queues) -> Detail {
    match listener(queues, &[]) {
        Detail::Listener(counted) => Detail::Listener(abi::Listener { before: 1, ..counted }),
        other => other,
    }
}

/// As it comes from the kernel side's table, not from the end of the listener.
pub fn from_table(mut event: Event) -> Event {
    event.envelope.via = Program::SnapshotIter as u16;
    event
}
