//! The model of holders, with what it takes from /proc, where another thread looks.

use std::collections::VecDeque;

use crate::{
    clock::boot_ns,
    event::Event,
    kernel::{Loss, Stage},
    model::{Holders, holders::Look},
    output::say,
    proc::{Answer, Looker, Question, answer},
};

/// Processes that are asked about at once.
const PROCESSES: usize = 64;

/// Completes events, and makes those that follow from them.
pub struct Follow {
    model: Holders,
    /// What follows from the last event, in order.
    made: Vec<Event>,
    looker: Option<Looker>,
    /// Answers that are newer than the events that were seen.
    answers: VecDeque<Answer>,
    /// It is asked whether those are guilty that a finding would name.
    accuses: bool,
    /// How often there was no room, as far as it was told.
    told: u64,
    /// The kernel skipped programs in the second before.
    skipped: bool,
}

impl Follow {
    /// Starts with what the model knows.
    pub fn new(model: Holders) -> Self {
        let looker = Looker::start();
        if let Err(error) = &looker {
            say!("socklife: what only /proc tells about holders is not known: {error}");
        }
        Self {
            model,
            made: Vec::new(),
            looker: looker.ok(),
            answers: VecDeque::new(),
            accuses: false,
            told: 0,
            skipped: false,
        }
    }

    /// Completes an event. What follows from it is [`Self::made`].
    pub fn event(&mut self, event: &mut Event) -> Look {
        self.answered(event.envelope.time_ns);
        self.model.see(event, &mut self.made)
    }

    /// Takes what was answered up to this time. /proc was looked at then, and what happened later is later.
    fn answered(&mut self, until_ns: u64) {
        let Some(looker) = &mut self.looker else { return };
        if looker.is_busy() {
            self.answers.extend(looker.answers());
        }
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.time_ns() <= until_ns) {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Holds {
                asked,
                sockets,
                time_ns,
            } => {
                // One that is gone tells so itself.
                if let Some(sockets) = sockets {
                    self.model.has_only(&asked, &sockets, time_ns, &mut self.made);
                }
            }
            Answer::NotHeld {
                asked_ns,
                not_held,
                time_ns,
            } => {
                for held in not_held {
                    self.model.acquit(&held, time_ns, &mut self.made);
                }
                self.model.tick(asked_ns, false, &mut self.made);
                self.accuses = false;
            }
            Answer::Zombies { zombies, time_ns } => {
                for (ended, parent) in zombies {
                    self.made.extend(self.model.zombie(&ended, parent, time_ns));
                }
            }
        }
    }

    /// What only time shows, and what was lost meanwhile.
    pub fn second(&mut self, news: &[Loss]) {
        let now = boot_ns();
        self.answered(now);
        self.lost(news, now);
        self.ask(now);
        let full = self.model.full();
        if full > self.told {
            say!(
                "socklife: {} times a socket's holders, or a child's copies, were not followed: too many (--max-sockets makes room)",
                full - self.told
            );
            self.told = full;
        }
    }

    /// Who cannot be asked now is asked the next time.
    fn ask(&mut self, now: u64) {
        let Some(looker) = &mut self.looker else { return };
        for asked in self.model.unsure(looker.room().min(PROCESSES), now) {
            looker.ask(Question::Holds(asked));
        }
        if !self.accuses && looker.room() > 0 {
            let accused = self.model.accused(now);
            // Also where nobody is accused: time goes on.
            self.accuses = looker.ask(Question::NotHeld {
                asked_ns: now,
                held: accused,
            });
        }
        if looker.room() > 0 {
            let ended = self.model.ended(now);
            if !ended.is_empty() {
                looker.ask(Question::Zombies(ended));
            }
        }
    }

    fn lost(&mut self, news: &[Loss], now: u64) {
        if news.iter().any(|loss| loss.stage != Stage::Sampled) {
            self.model.lost(now);
        }
        let skipped = news.iter().any(|loss| loss.stage == Stage::ProgramBusy);
        self.model.of_ended(skipped || self.skipped);
        self.skipped = skipped;
    }

    /// Nothing is attached any more: what is found wrong by now is told, and nobody waits for anything but /proc.
    pub fn end(&mut self, news: &[Loss]) {
        let now = boot_ns();
        self.answered(now);
        self.lost(news, now);
        let accused = Question::NotHeld {
            asked_ns: now,
            held: self.model.accused(now),
        };
        if let Answer::NotHeld { not_held, time_ns, .. } = answer(accused) {
            for held in not_held {
                self.model.acquit(&held, time_ns, &mut self.made);
            }
        }
        self.model.tick(now, true, &mut self.made);
    }

    /// What followed, once.
    pub fn made(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.made)
    }
}
