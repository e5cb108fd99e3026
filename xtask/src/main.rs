//! `cargo xtask`: build, test and check socklife.

mod apt;
mod bench;
mod bpf_linker;
mod build_ebpf;
mod cache;
mod cargo;
mod cmd;
mod cpio;
mod debian_version;
mod debian_web;
mod demo;
mod doc_table;
mod docs;
mod initramfs;
mod integration;
mod kernels;
mod lint;
mod matrix;
mod object_file;
mod output;
mod policy;
mod qemu;
mod record;
mod rungs;
mod rust_src;
mod rustc_wrapper;
mod since;
mod stack;
mod test;
mod toolchain;
mod trials;
mod vm;
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
    /// Run the unit tests, and the integration tests here and on every kernel in a VM.
    Test(test::Args),
    /// All that must hold before a merge: lint, the eBPF object, and test; as much of it at once as two cores can do.
    Ci(test::Args),
    /// Run the integration tests on one kernel in a VM, showing its console.
    Vm(vm::Args),
    /// Write tests/rungs.txt: which hook each kernel takes, as each says in a VM.
    Rungs(rungs::Args),
    /// Check formatting, lints and documents.
    Lint,
    /// Write the documents that are generated from the program.
    Docs,
    /// Measure this build against another one.
    Bench(bench::Args),
    /// Build socklife and show a few real connections.
    Demo(demo::Args),
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
        Task::Test(args) => test::run(&args),
        Task::Ci(args) => test::ci(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Rungs(args) => rungs::run(&args),
        Task::Lint => lint::run(),
        Task::Docs => docs::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Demo(args) => demo::run(&args),
    }
}
