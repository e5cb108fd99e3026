//! The command line: one file for each subcommand, with its arguments and what it does.

mod args;
mod capacity;
mod demo;
mod doctor;
mod generate;
mod queues;
mod serve;
mod skb;
mod sockets;
mod trace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What happened to this connection? The life of TCP sockets, seen with eBPF.
///
/// socklife watches bind, listen, connect, the handshake, accept and the end of every TCP connection of this machine, as
/// it happens, with the process and the four-tuple. It needs root (or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN) and a
/// kernel from 5.10 on with BTF.
#[derive(Debug, Parser)]
#[command(
    name = "socklife",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        sudo socklife trace                     everything, live\n  \
        sudo socklife trace --port 8080         one service, both ends\n  \
        sudo socklife trace -e connect_failed   connects that fail, with their errno\n  \
        sudo socklife queues                    each listener's two queues, every second\n  \
        socklife capacity                       how many connections this host can hold\n  \
        sudo socklife sockets --lport 8080      what exists now, and who holds it\n  \
        sudo socklife skb --port 8080           single segments, from layer to layer\n  \
        sudo socklife skb --drops               what is dropped, why and where\n  \
        sudo socklife skb --port 8080           segments on their way through the kernel's layers\n  \
        socklife serve --listen 127.0.0.1:8080  a server that forks for each connection, to watch\n  \
        sudo socklife doctor                    what this kernel lets socklife see"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Trace(trace::Trace),
    Queues(queues::Queues),
    Capacity(capacity::Capacity),
    Sockets(sockets::Sockets),
    Skb(skb::Skb),
    Serve(serve::Serve),
    Doctor(doctor::Doctor),
    Demo(demo::Demo),
    Generate(generate::Generate),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// One sentence for standard error, with a remedy where there is one.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Trace(trace) => trace.run(),
            Command::Queues(queues) => queues.run(),
            Command::Capacity(capacity) => capacity.run(),
            Command::Sockets(sockets) => sockets.run(),
            Command::Skb(skb) => skb.run(),
            Command::Serve(serve) => serve.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Demo(demo) => demo.run(),
            Command::Generate(generate) => generate.run(),
        }
    }
}
