use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Connect;

use super::{
    Describe, FieldDoc,
    holder::{OPENED_FIELDS, opened},
};

impl Describe for Connect {
    const MEANING: &'static str = "connect(2) has the four-tuple complete and is about to send the SYN.";
    const TASK: Option<&'static str> = Some("the one that called connect(2), or wrote with TCP Fast Open");
    const FIELDS: &'static [FieldDoc] = OPENED_FIELDS;

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        opened(map, self.fd, self.inode)
    }

    fn text(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
