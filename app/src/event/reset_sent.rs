use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::ResetSent;

use super::{
    Describe, FieldDoc,
    names::{MEANS, reason_json, state},
};
use crate::kernel::reasons;

impl Describe for ResetSent {
    const MEANING: &'static str =
        "A RST was sent: to a segment that does not fit, or because this end gives the connection up.";
    const TASK: Option<&'static str> = Some(
        "the one in whose call this end gave the connection up; absent where the RST answers a segment, and where a timer gave up (keepalive, an orphan)",
    );
    const FIELDS: &'static [FieldDoc] = &[
        (
            "reason",
            "the running kernel's name for it (`enum sk_rst_reason` in its BTF, without the prefix); absent before 6.10",
        ),
        MEANS,
        (
            "answers",
            "`true`: it answers a segment; `false`: this end gave up, and the process that did is named",
        ),
        (
            "state",
            "of the socket; absent where there is none, as for a closed port",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        reason_json(reasons::of_reset(self.reason), map)?;
        map.serialize_entry("answers", &(self.answers != 0))?;
        if self.state != 0 {
            map.serialize_entry("state", state(self.state))?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let what = if self.answers == 0 { "gave up" } else { "to a segment" };
        out.write_str(what)?;
        match self.state {
            0 => out.write_str(", no socket")?,
            number => write!(out, ", socket in {}", state(number))?,
        }
        match reasons::of_reset(self.reason) {
            Some(reason) => write!(out, ": {reason}"),
            None => Ok(()),
        }
    }
}
