//! A view that is made anew for each interval: drawn in place on a terminal, one block after the other elsewhere.

use std::{io::Write as _, time::Duration};

use anyhow::Result;

use super::{Blocks, Format, Sent, say, screen};

/// What stands there now.
pub struct Board {
    blocks: Blocks,
    in_place: bool,
    last: Vec<String>,
    skipped: u64,
}

impl Board {
    /// On standard output.
    pub fn start(format: Format) -> Result<Self> {
        let in_place = format == Format::Text && screen::size().is_some();
        let blocks = if in_place {
            Blocks::start(screen::ENTER, screen::LEAVE)?
        } else {
            Blocks::start(b"", b"")?
        };
        Ok(Self {
            blocks,
            in_place,
            last: Vec::new(),
            skipped: 0,
        })
    }

    /// Shows these lines; never waits. What an output that is too slow does not take is part of the next.
    pub fn text(&mut self, lines: Vec<String>) -> Sent {
        self.last = lines;
        let block = self.draw();
        self.send(block)
    }

    /// Shows these bytes.
    pub fn json(&mut self, block: Vec<u8>) -> Sent {
        self.send(block)
    }

    /// The terminal has another size.
    pub fn redraw(&self) {
        if self.in_place {
            // Of no interest if it is skipped: another comes soon.
            let _ = self.blocks.send(self.draw());
        }
    }

    /// Waits for the output, but not for one that stands still for so long.
    pub fn finish(self, patience: Duration) -> Result<()> {
        // What stood there last stays.
        let last = if self.in_place { text(&self.last) } else { Vec::new() };
        self.blocks.finish(patience, last)?;
        if self.skipped > 0 {
            say!(
                "socklife: {} blocks skipped, each is part of the next: output too slow",
                self.skipped
            );
        }
        Ok(())
    }

    fn send(&mut self, block: Vec<u8>) -> Sent {
        let sent = self.blocks.send(block);
        self.skipped += u64::from(sent == Sent::Lost);
        sent
    }

    fn draw(&self) -> Vec<u8> {
        if self.in_place {
            let size = screen::size().unwrap_or(screen::Size { height: 24, width: 80 });
            return screen::draw(&[], &self.last, &[], size).into_bytes();
        }
        let mut out = text(&self.last);
        out.push(b'\n');
        out
    }
}

fn text(lines: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        // To memory.
        let _ = writeln!(out, "{line}");
    }
    out
}
