//! The model of holders, with what it takes from /proc.

use crate::{
    clock::boot_ns,
    event::Event,
    model::{Holders, holders::Look},
    output::say,
    proc,
};

/// Completes events, and makes those that follow from them.
pub struct Follow {
    model: Holders,
    /// What follows from the last event, in order.
    made: Vec<Event>,
    /// How often there was no room, as far as it was told.
    told: u64,
    /// The kernel skipped programs in the second before.
    skipped: bool,
}

impl Follow {
    /// Starts with what the model knows.
    pub fn new(model: Holders) -> Self {
        Self {
            model,
            made: Vec::new(),
            told: 0,
            skipped: false,
        }
    }

    /// Completes an event. What follows from it is [`Self::made`].
    pub fn event(&mut self, event: &mut Event) -> Look {
        let now = event.envelope.time_ns;
        for pid in self.model.unsure(Some(event)) {
            self.look_up(pid, now);
        }
        self.model.see(event, &mut self.made)
    }

    /// Asks a process. /proc tells how it is now, which may be later than the event.
    fn look_up(&mut self, pid: u32, now: u64) {
        // One that is gone tells so itself.
        if let Some(sockets) = proc::socket_descriptors(pid) {
            self.model.has_only(pid, &sockets, now, &mut self.made);
        }
    }

    /// What only time shows; whether the kernel skipped programs meanwhile.
    pub fn second(&mut self, skipped: bool) {
        let now = boot_ns();
        for pid in self.model.unsure(None) {
            self.look_up(pid, now);
        }
        for held in self.model.accused(now) {
            if proc::holds(&held) == Some(false) {
                self.model.acquit(&held, now, &mut self.made);
            }
        }
        self.of_ended(skipped);
        self.model.tick(now, &mut self.made);
        for ended in self.model.ended(now) {
            if let Some(parent) = proc::zombie(ended.pid) {
                self.made.push(self.model.zombie(&ended, parent, now));
            }
        }
        let full = self.model.full();
        if full > self.told {
            say!(
                "socklife: {} times a socket's holders were not followed: too many sockets (--max-sockets makes room)",
                full - self.told
            );
            self.told = full;
        }
    }

    /// What is wrong with those who ended; whether the kernel skipped programs meanwhile.
    pub fn of_ended(&mut self, skipped: bool) {
        self.model.of_ended(skipped || self.skipped, &mut self.made);
        self.skipped = skipped;
    }

    /// What followed, once.
    pub fn made(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.made)
    }
}
