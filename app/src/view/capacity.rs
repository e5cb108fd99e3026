//! How many connections the host can hold, for people and for programs.

mod json;
mod number;
mod text;

pub use json::json;
pub use text::text;

use crate::{
    capacity::{Report, limits::Limit},
    output::Comm,
};

/// `nginx[41]`, or what stands for all that is started from here.
fn process(report: &Report, index: usize) -> String {
    match report.processes.get(index) {
        Some(process) if !process.own => format!("{}[{}]", Comm(process.comm), process.pid),
        _ => "a process started here".to_owned(),
    }
}

/// The name of a limit, with whose it is.
fn name(report: &Report, limit: &Limit) -> String {
    match limit.process {
        Some(index) => format!("{} of {}", limit.name, process(report, index)),
        None => limit.name.clone(),
    }
}
