use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Established;

use super::{Describe, FieldDoc};

impl Describe for Established {
    const MEANING: &'static str = "The accepting side finished the handshake: the connection waits for accept(2). Runs in softirq, so it \
                                   names no process.";
    const TASK: Option<&'static str> = None;
    const FIELDS: &'static [FieldDoc] = &[];

    fn json<M: SerializeMap>(&self, _map: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn text(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
