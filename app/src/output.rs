//! How events leave the program: as text for people, as JSON lines for programs.

mod json;
mod sanitize;
mod text;
mod writer;

use clap::ValueEnum;

pub use writer::{Output, Sent, start};

/// The format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
