//! `socklife capacity`: how many connections this host can hold.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use ipnet::IpNet;

use super::args::network;
use crate::{
    capacity::{self, Model, Question},
    clock::{self, Clock},
    output::{Format, Line},
    view,
};

/// Tell how many TCP connections this host can hold, and which limit binds first.
///
/// A connection is its four-tuple: both addresses and both ports. A listener has one address and one port, so it can have
/// as many connections as its clients have addresses and ports: 65,535 for each address, whatever anybody says of 65,535
/// connections for a server. What ends sooner is the host: descriptors of the process, open files, tasks where each
/// connection has one, memory, connection tracking. Each of them is read, and turned into a number of connections:
/// CONNECTIONS is how many there may be in all, those that exist included; VALUE is the limit itself, USED what of it is in
/// use now, WHERE where that was read. What a connection takes of memory is measured: a few are made on loopback, in a
/// network namespace of their own if that is permitted.
///
/// With `--listen` the limits are those of the process that listens there. Otherwise they are those of a process started
/// from here, in this shell, with these limits. It needs no privilege, but says what could not be read without. Connections
/// are taken to be idle. docs/capacity.md explains each limit.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    socklife capacity                                 a server started from here\n  \
    sudo socklife capacity --listen 0.0.0.0:443       the server that listens there\n  \
    socklife capacity --model fork                    with a process for each connection\n  \
    socklife capacity --listen '[::]:80' --clients 10.0.0.0/8\n  \
    socklife capacity -o json | jq .binds_first       for a program")]
pub struct Capacity {
    /// The listener in question, which need not exist; may be given several times.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listener)]
    listen: Vec<SocketAddr>,

    /// Where its clients are: 10.0.0.0/8, 2001:db8::/32, 192.0.2.7; may be given several times. Without it: anywhere. Clients
    /// on this host have only the ports that connect(2) takes.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    clients: Vec<IpNet>,

    /// What the server has for each connection.
    #[arg(long, value_enum, default_value_t)]
    model: Model,

    /// How to show it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Capacity {
    pub fn run(self) -> Result<ExitCode> {
        let report = capacity::survey(&Question {
            listen: self.listen,
            clients: self.clients,
            model: self.model,
        });
        let mut out = Vec::new();
        match self.output {
            Format::Text => out.extend(view::capacity::text(&report)?.bytes()),
            Format::Json => {
                let time_ns = clock::boot_ns();
                let mut wall = String::new();
                Clock::new().rfc3339(time_ns, &mut wall);
                view::capacity::json(&report, Line { time_ns, wall: &wall }, &mut out)?;
            }
        }
        io::stdout()
            .write_all(&out)
            .or_else(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            })
            .context("cannot write to standard output")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Port 0 is no listener.
fn listener(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ if text.parse::<IpAddr>().is_ok() => {
            Err(format!("a port is missing; give {text}:80, or [{text}]:80 for IPv6"))
        }
        _ => Err("give an address and a port such as 0.0.0.0:80 or [::]:80".to_owned()),
    }
}
