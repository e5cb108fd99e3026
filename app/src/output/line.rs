//! What every JSON line begins with that is not the line of one event.

use std::io::Write as _;

use serde::Serialize;

use super::json::VERSION;

/// The time of a line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// On the boot clock.
    pub time_ns: u64,
    /// The same as RFC 3339.
    pub wall: &'a str,
}

#[derive(Serialize)]
struct Whole<'a, T> {
    v: u32,
    event: &'a str,
    time_ns: u64,
    wall: &'a str,
    #[serde(flatten)]
    fields: &'a T,
}

impl Line<'_> {
    /// Appends a line of this name.
    pub fn write<T: Serialize>(self, event: &str, fields: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let whole = Whole {
            v: VERSION,
            event,
            time_ns: self.time_ns,
            wall: self.wall,
            fields,
        };
        serde_json::to_writer(&mut *out, &whole)?;
        out.write_all(b"\n").map_err(serde_json::Error::io)
    }
}
