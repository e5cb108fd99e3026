//! One JSON object a line. The names are those of `docs/events.md`; a field that is absent is unknown, or means nothing
//! here.

use std::{io::Write, net::IpAddr};

use anyhow::Result;
use serde::{Serialize, Serializer, ser::SerializeMap};
use socklife_abi::program::Program;

use super::line::Line;
use crate::{
    clock::Clock,
    comm::Comm,
    event::Event,
    kernel::{Loss, via},
};

/// The format's version: it changes when a name goes or changes its meaning, not when one is added.
pub const VERSION: u32 = 1;

/// Writes JSON lines.
pub struct Json {
    /// `via` by program, looked up once.
    via: Vec<Option<String>>,
    wall: String,
}

struct Whole<'a> {
    event: &'a Event,
    wall: &'a str,
    via: Option<&'a str>,
}

struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let envelope = &event.envelope;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &VERSION)?;
        map.serialize_entry("event", event.kind().name())?;
        map.serialize_entry("time_ns", &envelope.time_ns)?;
        map.serialize_entry("wall", self.wall)?;
        map.serialize_entry("cpu", &envelope.cpu)?;
        if envelope.cookie != 0 {
            map.serialize_entry("cookie", &envelope.cookie)?;
        }
        if event.born_before() {
            map.serialize_entry("born", "before")?;
        }
        // An event about a process is about no one socket.
        if envelope.family != 0 {
            if envelope.netns != 0 {
                map.serialize_entry("netns", &envelope.netns)?;
            }
            map.serialize_entry("family", &envelope.family)?;
            if event.mapped() {
                map.serialize_entry("mapped", &true)?;
            }
            let (laddr, raddr): (IpAddr, IpAddr) = (event.laddr(), event.raddr());
            map.serialize_entry("laddr", &laddr)?;
            map.serialize_entry("lport", &envelope.sport)?;
            // A socket that has no peer has no remote end, not one at 0.0.0.0.
            if envelope.dport != 0 || !raddr.is_unspecified() {
                map.serialize_entry("raddr", &raddr)?;
                map.serialize_entry("rport", &envelope.dport)?;
            }
        }
        if let Some(task) = event.task() {
            map.serialize_entry("pid", &task.pid)?;
            map.serialize_entry("tid", &task.tid)?;
            map.serialize_entry("comm", &Shown(Comm(task.comm)))?;
            map.serialize_entry("uid", &task.uid)?;
        }
        if let Some(via) = self.via {
            map.serialize_entry("via", via)?;
        }
        event.detail.json(&mut map)?;
        map.end()
    }
}

#[derive(Serialize)]
struct Lost {
    stage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    count: u64,
}

/// Appends a `lost` line.
pub fn lost(loss: &Loss, line: Line<'_>, out: &mut Vec<u8>) -> Result<()> {
    let fields = Lost {
        stage: loss.stage.name(),
        kind: loss.kind.map(socklife_abi::event::Kind::name),
        count: loss.count,
    };
    Ok(line.write("lost", &fields, out)?)
}

impl Json {
    pub fn new() -> Self {
        Self {
            via: Program::ALL.iter().map(|program| via(*program as u16)).collect(),
            wall: String::new(),
        }
    }

    /// Appends the line of an event.
    pub fn event(&mut self, event: &Event, clock: &mut Clock, out: &mut Vec<u8>) -> Result<()> {
        self.wall.clear();
        clock.rfc3339(event.envelope.time_ns, &mut self.wall);
        let line = Whole {
            event,
            wall: &self.wall,
            via: self.via.get(usize::from(event.envelope.via)).and_then(Option::as_deref),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
        Ok(())
    }

    /// Appends a `lost` line.
    pub fn lost(&mut self, loss: &Loss, time_ns: u64, clock: &mut Clock, out: &mut Vec<u8>) -> Result<()> {
        self.wall.clear();
        clock.rfc3339(time_ns, &mut self.wall);
        let wall = &self.wall;
        lost(loss, Line { time_ns, wall }, out)
    }
}
