use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Forked;

use super::{Describe, FieldDoc};

impl Describe for Forked {
    const MEANING: &'static str =
        "A process that holds sockets made another; `inherited` tells which sockets. `pid` is the parent.";
    const TASK: Option<&'static str> = Some("the parent");
    const FIELDS: &'static [FieldDoc] = &[
        ("child", "the new process"),
        (
            "shared",
            "`true`: both use one table of descriptors (`CLONE_FILES`), and nothing is inherited",
        ),
    ];

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("child", &self.child)?;
        if self.shared != 0 {
            map.serialize_entry("shared", &true)?;
        }
        Ok(())
    }

    fn text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "child {}", self.child)?;
        if self.shared != 0 {
            out.write_str(", one table of descriptors")?;
        }
        Ok(())
    }
}
