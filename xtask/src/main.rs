//! `cargo xtask`: build, test and check socklife.

mod apt;
mod bpf_linker;
mod build_ebpf;
mod cache;
mod cargo;
mod cmd;
mod debian_version;
mod debian_web;
mod object_file;
mod output;
mod record;
mod rust_src;
mod rustc_wrapper;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test and check socklife.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build app-ebpf/socklife.bpf.o from source.
    BuildEbpf(build_ebpf::Args),
}

fn main() -> ExitCode {
    let result = rustc_wrapper::become_rustc_if_called().and_then(|()| run(Cli::parse().task));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::step(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::BuildEbpf(args) => build_ebpf::run(&args),
    }
}
