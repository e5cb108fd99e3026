use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Connect;

use super::{Describe, FieldDoc};

impl Describe for Connect {
    const MEANING: &'static str = "connect(2) has the four-tuple complete and is about to send the SYN.";
    const FIELDS: &'static [FieldDoc] = &[];

    fn json<M: SerializeMap>(&self, _map: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn text(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
