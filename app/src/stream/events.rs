//! Each event to the output, one by one.

use std::time::Duration;

use anyhow::Result;
use socklife_abi::{config::Filter, event::Kind};

use super::{Sink, tell};
use crate::{
    event::Event,
    kernel::{Counters, Loss, Stage},
    output::{Output, Sent},
};

/// Sends events to an output.
pub struct Events {
    output: Output,
    filter: Filter,
    /// Something was counted only: the totals are told, too.
    sampled: bool,
}

impl Events {
    /// Of a trace with this filter.
    pub fn new(output: Output, filter: Filter) -> Self {
        Self {
            output,
            filter,
            sampled: false,
        }
    }

    /// What was counted of each listener.
    fn totals(&mut self, counters: &Counters) -> Result<()> {
        if self.wants(Kind::Listener) {
            for event in counters.listeners()? {
                // What the output does not take it counts.
                let _ = self.output.send(event);
            }
        }
        Ok(())
    }

    /// The kernel side's tables do not know whose sockets a process asked for.
    fn wants(&self, kind: Kind) -> bool {
        self.filter.pid == 0 && kind.is_in(self.filter.events)
    }
}

impl Sink for Events {
    fn event(&mut self, event: Event) -> Sent {
        self.output.send(event)
    }

    fn made(&mut self, event: Event) -> Sent {
        if self.wants(event.kind()) {
            self.output.send(event)
        } else {
            Sent::Unwanted
        }
    }

    fn second(&mut self, news: &[Loss], counters: &Counters) -> Result<()> {
        tell(news);
        if news.iter().any(|loss| loss.stage == Stage::Sampled) {
            self.sampled = true;
            self.totals(counters)?;
        }
        Ok(())
    }

    fn end(&mut self, news: &[Loss], counters: &Counters) -> Result<()> {
        tell(news);
        if self.sampled || news.iter().any(|loss| loss.stage == Stage::Sampled) {
            self.totals(counters)?;
        }
        Ok(())
    }

    fn finish(self, patience: Duration) -> Result<()> {
        self.output.finish(patience)
    }
}
