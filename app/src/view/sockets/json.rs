//! A socket as one JSON line.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use socklife_abi::socket::MAPPED;

use super::{
    queues_json::{DwellFields, QueuesFields},
    row::Row,
};
use crate::{
    event::{FieldDoc, names},
    holders::Holder,
    output::{Comm, Line},
};

/// The fields beside `v`, `event`, `time_ns` and `wall`.
pub const FIELDS: &[FieldDoc] = &[
    (
        "state",
        "the kernel's name: `LISTEN`, `ESTABLISHED`, …; `NEW_SYN_RECV` is half-open: it stands in the SYN queue",
    ),
    (
        "cookie",
        "the kernel's socket cookie, the same as in events; absent in TIME_WAIT, whose cookie is not the connection's",
    ),
    ("listener", "of a half-open connection: the cookie of its listener"),
    ("netns", "inode of the network namespace"),
    ("family", "4 or 6: the protocol on the wire; of a listener: its own"),
    (
        "mapped",
        "`true` for an IPv6 socket that speaks IPv4 (`::ffff:a.b.c.d`)",
    ),
    ("laddr", "address of this end"),
    ("lport", "port of this end"),
    ("raddr", "address of the other end; a listener has none"),
    ("rport", "port of the other end"),
    (
        "inode",
        "inode of the socket; absent where no process has it: half-open, in the accept queue, closed by all",
    ),
    ("uid", "user that the socket belongs to; absent without an inode"),
    (
        "recv_q",
        "bytes that wait to be read (the peer's FIN counts as one); of a listener, as `ss` has it, `accept_queue`",
    ),
    (
        "send_q",
        "bytes that the peer has not acknowledged (SYN and FIN count as one); of a listener `accept_queue_limit`",
    ),
    ("syn_queue", "of a listener: half-open connections"),
    ("syn_queue_limit", "… and how many may be"),
    ("accept_queue", "of a listener: connections that wait for accept(2)"),
    ("accept_queue_limit", "… and how many may wait"),
    ("in_accept_queue", "`true`: accept(2) has not taken it yet"),
    (
        "timer",
        "of a connection, the timer that runs: `retransmission`, `window_probe`, `keepalive`, `fin_wait2` (it waits for the \
         peer's FIN), or `none`: then nothing notices that the peer is gone until something is sent",
    ),
    (
        "idle_ns",
        "of a connection: since it last sent data, received data or was acknowledged, as exact as a tick of the kernel's clock",
    ),
    (
        "queues",
        "with `--queues`, of a connection: what its queues hold, an object; see below",
    ),
    (
        "dwell",
        "with `--interval`: how long its data waited, an object; see below",
    ),
    (
        "holders",
        "every descriptor of it: a list of `pid`, `comm` and `fd`; absent where none was seen",
    ),
];

#[derive(Serialize)]
struct Held {
    pid: u32,
    comm: String,
    fd: u32,
}

impl From<&Holder> for Held {
    fn from(holder: &Holder) -> Self {
        Self {
            pid: holder.process.pid,
            comm: Comm(holder.process.comm).to_string(),
            fd: holder.fd,
        }
    }
}

struct Fields<'a>(&'a Row<'a>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (row, socket) = (self.0, self.0.socket);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("state", names::state(socket.state.into()))?;
        for (name, value) in [("cookie", socket.cookie), ("listener", socket.listener)] {
            if value != 0 {
                map.serialize_entry(name, &value)?;
            }
        }
        map.serialize_entry("netns", &socket.netns)?;
        map.serialize_entry("family", &socket.family)?;
        if socket.flags & MAPPED != 0 {
            map.serialize_entry("mapped", &true)?;
        }
        map.serialize_entry("laddr", &row.laddr())?;
        map.serialize_entry("lport", &socket.sport)?;
        if let Some(raddr) = row.raddr() {
            map.serialize_entry("raddr", &raddr)?;
            map.serialize_entry("rport", &socket.dport)?;
        }
        if let Some(uid) = row.uid() {
            map.serialize_entry("inode", &socket.inode)?;
            map.serialize_entry("uid", &uid)?;
        }
        map.serialize_entry("recv_q", &socket.recv_q)?;
        map.serialize_entry("send_q", &socket.send_q)?;
        if row.listens() {
            map.serialize_entry("syn_queue", &socket.syn_queue)?;
            map.serialize_entry("syn_queue_limit", &socket.syn_queue_limit)?;
            map.serialize_entry("accept_queue", &socket.recv_q)?;
            map.serialize_entry("accept_queue_limit", &socket.send_q)?;
        }
        if row.in_accept_queue() {
            map.serialize_entry("in_accept_queue", &true)?;
        }
        if let Some(timer) = row.timer() {
            map.serialize_entry("timer", timer)?;
        }
        if let Some(idle) = row.idle() {
            map.serialize_entry("idle_ns", &u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX))?;
        }
        if let Some(queues) = row.queues {
            map.serialize_entry("queues", &QueuesFields::of(queues))?;
            if let Some(dwell) = &queues.dwell {
                map.serialize_entry("dwell", &DwellFields::from(dwell))?;
            }
        }
        if !row.holders.is_empty() {
            map.serialize_entry("holders", &row.holders.iter().map(Held::from).collect::<Vec<_>>())?;
        }
        map.end()
    }
}

/// The line of a socket.
pub fn json(row: &Row<'_>, line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    line.write("socket", &Fields(row), out)
}
