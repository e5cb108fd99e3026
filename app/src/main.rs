//! `socklife`: parse, run, exit code. 0: done; 1: it could not be done; 2: the command line is wrong.

use std::process::ExitCode;

use clap::Parser as _;
use socklife::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("socklife: {error:#}");
            ExitCode::FAILURE
        }
    }
}
