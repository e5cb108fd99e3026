use std::fmt;

use serde::ser::SerializeMap;
use socklife_abi::event::Executed;

use super::{Describe, FieldDoc};

impl Describe for Executed {
    const MEANING: &'static str = "A process that holds sockets runs another program: `comm` is its new name. Descriptors marked close-on-exec are closed.";
    const TASK: Option<&'static str> = Some("the one that called execve(2)");
    const FIELDS: &'static [FieldDoc] = &[];

    fn json<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn text(&self, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
