//! Events as bytes, line by line, in one of the formats.

use anyhow::Result;

use super::{Format, json::Json, text::Text};
use crate::{clock::Clock, event::Event, kernel::Loss};

/// Makes lines of events.
pub struct Lines {
    format: Kind,
    clock: Clock,
}

enum Kind {
    Text(Text),
    Json(Json),
}

impl Lines {
    /// In this format.
    pub fn new(format: Format) -> Self {
        Self {
            format: match format {
                Format::Text => Kind::Text(Text::new()),
                Format::Json => Kind::Json(Json::new()),
            },
            clock: Clock::new(),
        }
    }

    /// Looks at the clocks again, if that was long ago.
    pub fn adjust(&mut self) {
        self.clock.adjust();
    }

    /// Appends what stands above all lines, if anything does.
    pub fn header(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.format {
            Kind::Text(text) => text.header(out),
            Kind::Json(_) => Ok(()),
        }
    }

    /// Appends the line of an event.
    pub fn event(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.format {
            Kind::Text(text) => text.event(event, &mut self.clock, out),
            Kind::Json(json) => json.event(event, &mut self.clock, out),
        }
    }

    /// Whether a loss has a line here. In text the losses go to standard error, from the reader.
    pub fn tells_losses(&self) -> bool {
        matches!(self.format, Kind::Json(_))
    }

    /// Appends the line of a loss.
    pub fn lost(&mut self, loss: &Loss, time_ns: u64, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.format {
            Kind::Text(_) => Ok(()),
            Kind::Json(json) => json.lost(loss, time_ns, &mut self.clock, out),
        }
    }
}
