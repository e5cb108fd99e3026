//! The rows for programs: a JSON object each.

use anyhow::Result;
use serde::Serialize;

use super::Row;
use crate::{
    event::{FieldDoc, names::MEANS},
    output::Line,
};

/// The fields of a line `drops`, beside those of every line.
pub const FIELDS: &[FieldDoc] = &[
    (
        "reason",
        "the running kernel's name for it, as in the event `skb_dropped`; absent before 5.17",
    ),
    MEANS,
    ("location", "the kernel's function that dropped them"),
    ("direction", "`in` or `out`"),
    ("segments", "how many, since the start"),
    ("in_interval", "how many since the block before"),
    ("bytes", "bytes of data in them, since the start"),
];

#[derive(Serialize)]
struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    means: Option<&'static str>,
    location: &'a str,
    direction: &'static str,
    segments: u64,
    in_interval: u64,
    bytes: u64,
}

/// Writes a line.
pub fn json(row: &Row, line: Line<'_>, out: &mut Vec<u8>) -> Result<()> {
    let fields = Fields {
        reason: row.reason.as_ref().map(|reason| &*reason.name),
        means: row.reason.as_ref().and_then(|reason| reason.means),
        location: &row.location,
        direction: row.direction(),
        segments: row.total.segments,
        in_interval: row.in_interval,
        bytes: row.total.bytes,
    };
    Ok(line.write("drops", &fields, out)?)
}
