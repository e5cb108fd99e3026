//! Segments that are followed: each step as a JSON line, or each segment as a drawing.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use super::{Passed, Sink, tell};
use crate::{
    clock::{Clock, boot_ns},
    event::Event,
    kernel::{Counters, Loss, Losses},
    model::segments::{Segment, Segments as Model},
    output::{self, Blocks, Format, Output, Sent},
    view::segment::Drawing,
};

/// How often what has ended is shown.
const SHOW: Duration = Duration::from_millis(100);
/// Bytes of drawings that may wait for a slow output.
const WAITING: usize = 1 << 20;

/// Shows segments.
pub struct Segments {
    model: Model,
    shown: Shown,
    losses: Arc<Losses>,
}

enum Shown {
    Lines(Output),
    Drawings(Box<Drawings>),
}

struct Drawings {
    blocks: Blocks,
    drawing: Drawing,
    clock: Clock,
    /// What is drawn, and was not handed over yet.
    text: Vec<u8>,
}

impl Segments {
    /// On standard output.
    pub fn start(format: Format, losses: Arc<Losses>) -> Result<Self> {
        let shown = match format {
            Format::Json => Shown::Lines(output::start(format, Arc::clone(&losses))?),
            Format::Text => Shown::Drawings(Box::new(Drawings {
                blocks: Blocks::start(b"", b"")?,
                drawing: Drawing::default(),
                clock: Clock::new(),
                text: Vec::new(),
            })),
        };
        Ok(Self {
            model: Model::default(),
            shown,
            losses,
        })
    }

    fn ended(&mut self, segments: &[Segment], passed: &mut Passed) {
        for segment in segments {
            if passed.done() {
                return;
            }
            if let Shown::Drawings(drawings) = &mut self.shown {
                if drawings.text.len() > WAITING {
                    for step in &segment.steps {
                        self.losses.output_full(step.event.kind());
                    }
                    passed.note(Sent::Lost);
                    continue;
                }
                drawings.draw(segment);
            }
            passed.note(Sent::Yes);
        }
    }

    /// Hands over what is drawn; a slow output gets it later.
    fn hand_over(&mut self, passed: &mut Passed) {
        if let Shown::Drawings(drawings) = &mut self.shown
            && drawings.hand_over() == Sent::Closed
        {
            passed.close();
        }
    }
}

impl Drawings {
    fn draw(&mut self, segment: &Segment) {
        self.clock.adjust();
        let drawn = self.drawing.of(segment, &mut self.clock);
        self.text.extend_from_slice(drawn.as_bytes());
    }

    fn hand_over(&mut self) -> Sent {
        if self.text.is_empty() {
            return Sent::Unwanted;
        }
        let sent = self.blocks.send(self.text.clone());
        if sent == Sent::Yes {
            self.text.clear();
        }
        sent
    }
}

impl Sink for Segments {
    fn what(&self) -> &'static str {
        "segments"
    }

    fn interval(&self) -> Option<Duration> {
        Some(SHOW)
    }

    fn event(&mut self, event: Event, passed: &mut Passed) {
        self.model.see(event);
        if let Shown::Lines(output) = &self.shown
            && output.send(event) == Sent::Closed
        {
            passed.close();
        }
    }

    fn second(&mut self, news: &[Loss], _: &Counters, _: &mut Passed) -> Result<()> {
        tell(news);
        Ok(())
    }

    fn show(&mut self, _: &Counters, passed: &mut Passed) -> Result<bool> {
        let ended = self.model.ended(boot_ns());
        self.ended(&ended, passed);
        self.hand_over(passed);
        Ok(true)
    }

    fn end(&mut self, news: &[Loss], _: &Counters, passed: &mut Passed) -> Result<()> {
        tell(news);
        let rest = self.model.rest();
        self.ended(&rest, passed);
        Ok(())
    }

    fn finish(self, patience: Duration) -> Result<()> {
        match self.shown {
            Shown::Lines(output) => output.finish(patience),
            Shown::Drawings(drawings) => drawings.blocks.finish(patience, drawings.text),
        }
    }
}
