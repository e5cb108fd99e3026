//! Each event to the output, one by one.

use std::time::Duration;

use anyhow::Result;
use socklife_abi::{config::Filter, event::Kind};

use super::{Passed, Sink, follow::Follow, tell};
use crate::{
    event::Event,
    kernel::{Counters, Loss, Stage},
    model::{Holders, holders::Look},
    output::Output,
};

/// Sends events to an output.
pub struct Events {
    output: Output,
    filter: Filter,
    /// The kinds that are shown; more may be needed to tell them.
    shown: u64,
    /// Who holds what, where that was asked for.
    follow: Option<Follow>,
    /// Something was counted only: the totals are told, too.
    sampled: bool,
}

impl Events {
    /// Of a trace with this filter, which shows these kinds.
    pub fn new(output: Output, filter: Filter, shown: u64, holders: Option<Holders>) -> Self {
        Self {
            output,
            filter,
            shown,
            follow: holders.map(Follow::new),
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

    fn send(&self, event: Event, passed: &mut Passed) {
        if event.kind().is_in(self.shown) && !passed.done() {
            passed.note(self.output.send(event));
        }
    }

    /// What followed from the last event.
    fn send_made(&mut self, passed: &mut Passed) {
        for event in self.follow.as_mut().map(Follow::made).unwrap_or_default() {
            self.send(event, passed);
        }
    }

    /// The kernel side's tables do not know whose sockets a process asked for.
    fn wants(&self, kind: Kind) -> bool {
        self.filter.pid == 0 && kind.is_in(self.shown)
    }
}

impl Sink for Events {
    fn event(&mut self, mut event: Event, passed: &mut Passed) {
        let look = self
            .follow
            .as_mut()
            .map_or(Look::Tell, |follow| follow.event(&mut event));
        if look == Look::Tell {
            self.send(event, passed);
        }
        self.send_made(passed);
    }

    fn made(&mut self, event: Event, passed: &mut Passed) {
        if self.wants(event.kind()) {
            self.send(event, passed);
        }
    }

    fn second(&mut self, news: &[Loss], counters: &Counters, passed: &mut Passed) -> Result<()> {
        tell(news);
        if news.iter().any(|loss| loss.stage == Stage::Sampled) {
            self.sampled = true;
            self.totals(counters)?;
        }
        if let Some(follow) = &mut self.follow {
            follow.second(news);
        }
        self.send_made(passed);
        Ok(())
    }

    fn end(&mut self, news: &[Loss], counters: &Counters, passed: &mut Passed) -> Result<()> {
        tell(news);
        if let Some(follow) = &mut self.follow {
            follow.end(news);
        }
        self.send_made(passed);
        if self.sampled || news.iter().any(|loss| loss.stage == Stage::Sampled) {
            self.totals(counters)?;
        }
        Ok(())
    }

    fn finish(self, patience: Duration) -> Result<()> {
        self.output.finish(patience)
    }
}
