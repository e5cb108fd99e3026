//! `socklife serve`: the reference server, to be watched.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;

use super::args::duration;
use crate::server::{self, Mistakes, Options};

/// Run a server that forks a process for each connection, the oldest model there is.
///
/// The parent accepts, forks, and closes its copy of the connection; the child closes its copy of the listener, serves the
/// connection, and exits; the parent reaps it. A child sends lines back as they come, so `nc` is a client. To an HTTP
/// request it answers with a JSON object of what it knows itself: its PID and its parent's, the file descriptor, the
/// socket's inode and cookie, and the four-tuple; so curl, wrk and a browser are clients, and a test has a witness.
///
/// SIGTERM and Ctrl-C close the listeners and wait for the children that still serve. It needs no privilege.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    socklife serve --listen '[::]:8080'                 IPv4 and IPv6, on every address\n  \
    socklife serve --max-children 4 --backlog 2         a limit that the accept queue shows\n  \
    socklife serve --accept-delay 100ms --backlog 1     a server that accepts too slowly\n  \
    socklife serve --leak-connection                    the parent forgets to close its copy")]
pub struct Serve {
    /// Listen here; may be given several times. Port 0 takes a free port, and the line that is printed says which. An
    /// IPv6 wildcard takes IPv4 connections, too.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,

    /// The backlog to ask listen(2) for.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(i32).range(0..))]
    backlog: i32,

    /// How many children there may be at a time; at the limit nothing is accepted, so that the accept queue shows it.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_children: u32,

    /// A child gives up a client that says nothing for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    idle_timeout: Duration,

    /// Wait so long before each accept(2).
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration, help_heading = "Mistakes, on purpose")]
    accept_delay: Duration,

    /// A child works so long on each answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration, help_heading = "Mistakes, on purpose")]
    work: Duration,

    /// Children keep their copy of the listeners open.
    #[arg(long, help_heading = "Mistakes, on purpose")]
    leak_listener: bool,

    /// The parent keeps its copy of each connection open.
    #[arg(long, help_heading = "Mistakes, on purpose")]
    leak_connection: bool,

    /// The parent does not wait for children: they stay as zombies, and count against `--max-children`.
    #[arg(long, help_heading = "Mistakes, on purpose")]
    no_reap: bool,

    /// Start at a line on standard input, and end with the parent (for `--serve` of other commands).
    #[arg(long, hide = true)]
    attended: bool,
}

impl Serve {
    pub fn run(self) -> Result<ExitCode> {
        server::run(&Options {
            listen: self.listen,
            backlog: self.backlog,
            max_children: self.max_children,
            idle_timeout: self.idle_timeout,
            work: self.work,
            mistakes: Mistakes {
                accept_delay: self.accept_delay,
                leak_listener: self.leak_listener,
                leak_connection: self.leak_connection,
                no_reap: self.no_reap,
            },
            attended: self.attended,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
