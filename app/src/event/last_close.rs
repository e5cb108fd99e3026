use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::LastClose;

use super::{Describe, FieldDoc};

impl Describe for LastClose {
    const MEANING: &'static str = "Nobody has a descriptor of the socket any more: now the kernel ends the connection, or the listener. What a parent closes after fork(2) is not the last.";
    const TASK: Option<&'static str> =
        Some("the one that gave the last descriptor up; absent where a kernel thread let go of it later");
    const FIELDS: &'static [FieldDoc] = &[];

    fn json<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
