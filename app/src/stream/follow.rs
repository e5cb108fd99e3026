//! The model of holders, with what it takes from /proc.

use crate::{
    clock::boot_ns,
    event::Event,
    model::{Holders, holders::Look},
    proc,
};

/// Completes events, and makes those that follow from them.
pub struct Follow {
    model: Holders,
    /// What follows from the last event, in order.
    made: Vec<Event>,
    /// How often there was no room, as far as it was told.
    told: u64,
}

impl Follow {
    /// Starts with what the model knows.
    pub fn new(model: Holders) -> Self {
        Self {
            model,
            made: Vec::new(),
            told: 0,
        }
    }

    /// Completes an event. What follows from it is [`Self::made`].
    pub fn event(&mut self, event: &mut Event) -> Look {
        let now = event.envelope.time_ns;
        self.look_up(Some(event), now);
        self.model.see(event, &mut self.made)
    }

    /// Asks the processes of which the model is not sure. /proc tells how it is now, which may be later than the event.
    fn look_up(&mut self, next: Option<&Event>, now: u64) {
        for pid in self.model.unsure(next) {
            // One that is gone tells so itself.
            if let Some(sockets) = proc::socket_descriptors(pid) {
                self.model.has_only(pid, &sockets, now, &mut self.made);
            }
        }
    }

    /// What only time shows.
    pub fn second(&mut self) {
        let now = boot_ns();
        self.look_up(None, now);
        self.model.tick(now, &mut self.made);
        for ended in self.model.ended(now) {
            if let Some(parent) = proc::zombie(ended.pid) {
                self.made.push(self.model.zombie(&ended, parent, now));
            }
        }
        let full = self.model.full();
        if full > self.told {
            eprintln!(
                "socklife: {} times a socket's holders were not followed: too many sockets (--max-sockets makes room)",
                full - self.told
            );
            self.told = full;
        }
    }

    /// What followed, once.
    pub fn made(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.made)
    }
}
