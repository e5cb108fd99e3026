//! `socklife`: parse, run, exit code. 0: done; 1: it could not be done; 2: the command line is wrong.
#![warn(clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser as _;
use socklife::{cli::Cli, output::say_line};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            say_line(format_args!("socklife: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
