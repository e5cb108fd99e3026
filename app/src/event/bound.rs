use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Bound;

use super::{
    Describe, FieldDoc,
    holder::{OPENED_FIELDS, opened},
};

impl Describe for Bound {
    const MEANING: &'static str = "bind(2) gave the socket its local address and port. A port that connect(2) or \
                                   listen(2) chooses by itself does not pass here.";
    const TASK: Option<&'static str> = Some("the one that called bind(2)");
    const FIELDS: &'static [FieldDoc] = OPENED_FIELDS;

    fn json<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        opened(map, self.fd, self.inode)
    }

    fn text(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
