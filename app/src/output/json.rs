//! One JSON object a line. The names are those of `docs/events.md`; a field that is absent is unknown, or means nothing
//! here.

mod object;

use anyhow::Result;
use serde::{Serialize, ser::SerializeMap as _};
use socklife_abi::program::Program;

use self::object::Object;
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
        let envelope = &event.envelope;
        self.wall.clear();
        clock.rfc3339(envelope.time_ns, &mut self.wall);
        let mut line = Object::begin(out);
        line.serialize_entry("v", &VERSION)?;
        line.plain("event", event.kind().name().as_bytes());
        line.serialize_entry("time_ns", &envelope.time_ns)?;
        line.plain("wall", self.wall.as_bytes());
        line.serialize_entry("cpu", &envelope.cpu)?;
        if envelope.cookie != 0 {
            line.serialize_entry("cookie", &envelope.cookie)?;
        }
        if event.born_before() {
            line.plain("born", b"before");
        }
        if let Some(life) = event.life() {
            line.serialize_entry("life", &life)?;
        }
        // An event about a process is about no one socket.
        if envelope.family != 0 {
            if envelope.netns != 0 {
                line.serialize_entry("netns", &envelope.netns)?;
            }
            line.serialize_entry("family", &envelope.family)?;
            if event.mapped() {
                line.serialize_entry("mapped", &true)?;
            }
            let raddr = event.raddr();
            line.serialize_entry("laddr", &event.laddr())?;
            line.serialize_entry("lport", &envelope.sport)?;
            // A socket that has no peer has no remote end, not one at 0.0.0.0.
            if envelope.dport != 0 || !raddr.is_unspecified() {
                line.serialize_entry("raddr", &raddr)?;
                line.serialize_entry("rport", &envelope.dport)?;
            }
        }
        if let Some(task) = event.task() {
            line.serialize_entry("pid", &task.pid)?;
            line.serialize_entry("tid", &task.tid)?;
            line.serialize_entry("comm", &Comm(task.comm))?;
            line.serialize_entry("uid", &task.uid)?;
        }
        if let Some(Some(via)) = self.via.get(usize::from(envelope.via)) {
            line.serialize_entry("via", via)?;
        }
        event.detail.json(&mut line)?;
        line.end()?;
        out.push(b'\n');
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
