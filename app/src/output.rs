//! How events and views leave the program: as text for people, as JSON lines for programs.

mod blocks;
mod board;
mod columns;
mod grouped;
mod json;
mod line;
mod lines;
mod millis;
pub mod screen;
mod stderr;
mod stdout;
mod text;
mod writer;

use clap::ValueEnum;

pub use crate::comm::Comm;
pub use blocks::Blocks;
pub use board::Board;
pub use columns::{Columns, Title};
pub use grouped::Grouped;
pub use json::lost;
pub use line::Line;
pub use lines::Lines;
pub use millis::millis;
pub(crate) use stderr::say;
pub use stderr::say_line;
pub use writer::{Output, start};

/// The format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What became of something that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// It was lost, and counted.
    Lost,
    /// Nobody asked for it.
    Unwanted,
    /// The writer is gone.
    Closed,
}
