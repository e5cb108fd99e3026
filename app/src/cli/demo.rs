//! `socklife demo`: connections to watch, and what `trace` says of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
    process::ExitCode,
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use socklife_abi::config::Filter;

use super::args::{check_privileges, drop_privileges};
use crate::{
    kernel::{Kernel, Losses, Tracer, Wanted},
    model::Holders,
    netns,
    output::{self, Format, say},
    scene,
    server::Attended,
    stream::{self, Check, Events, Limits},
};

/// Make a handful of connections in a network namespace of their own, and trace them.
#[derive(Args, Debug)]
pub struct Demo {
    /// How to show events.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Demo {
    pub fn run(self) -> Result<ExitCode> {
        check_privileges()?;
        let (ready, namespace) = channel();
        let (go, gone) = channel::<()>();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        thread::scope(|scope| {
            let player = scope.spawn(move || {
                let netns = netns::enter_new()?;
                // Before anything is attached: no fork should copy that.
                let servers = Servers::begin()?;
                ready.send(netns).context("nobody waits")?;
                let played = match gone.recv() {
                    Ok(()) => play(servers),
                    Err(_) => Ok(()),
                };
                // The trace may have been ended already.
                let _ = stop.send(());
                played
            });
            let traced = namespace
                .recv()
                .context("the namespace was not made")
                .and_then(|netns| {
                    let wanted = Wanted {
                        filter: Filter { netns, ..Filter::ANY },
                        ..Wanted::default()
                    };
                    let losses = Arc::new(Losses::default());
                    let tracer = Tracer::start(&Kernel::running()?, &wanted, false)?;
                    drop_privileges(true)?;
                    let output = output::start(self.output, Arc::clone(&losses))?;
                    let limits = Limits {
                        until: Some(stopped),
                        ..Limits::default()
                    };
                    go.send(()).context("the connecting thread is gone")?;
                    let events = Events::new(
                        output,
                        wanted.filter,
                        u64::MAX,
                        Some(Holders::new(wanted.max_sockets as usize)),
                    );
                    stream::run(tracer, events, &losses, limits, &Check::default()).map(drop)
                });
            player
                .join()
                .map_err(|_| anyhow!("the connecting thread died"))?
                .and(traced)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Reference servers that wait for their scene.
struct Servers {
    right: Attended,
    wrong: Attended,
}

const RIGHT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080);
const WRONG: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8081);

impl Servers {
    fn begin() -> Result<Self> {
        Ok(Self {
            right: Attended::begin(RIGHT.into(), &[])?,
            wrong: Attended::begin(WRONG.into(), &["--leak-connection"])?,
        })
    }
}

fn play(mut servers: Servers) -> Result<()> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    say("an IPv4 connection, closed by the client");
    scene::connection(v4, v4)?;
    if scene::has_ipv6() {
        say("an IPv6 connection");
        scene::connection(v6, v6)?;
        say("an IPv4 client of a dual-stack listener");
        scene::connection(IpAddr::V6(Ipv6Addr::UNSPECIFIED), v4)?;
    }
    say("a server that forks: the parent accepts, the child inherits, the parent closes, the child serves and ends it");
    servers.right.start()?;
    scene::client(RIGHT)?;
    say("the same, but the parent forgets to close its copy: the client sees no end, and that is a finding");
    servers.wrong.start()?;
    scene::client(WRONG)?;
    // A finding has lasted a second, and is looked for once a second.
    thread::sleep(Duration::from_millis(2100));
    drop(servers);
    say("a connect to a port where nobody listens");
    scene::refused()?;
    scene::peer::prepare()?;
    say(
        "an accept queue that is full: a final ACK and a SYN find it so, and nobody accepts before the listener closes",
    );
    scene::queues::full_accept_queue(v4)?;
    // What the last close still has to say.
    thread::sleep(Duration::from_millis(50));
    Ok(())
}

/// Between the scenes, so that each has its events below its name.
fn say(what: &str) {
    thread::sleep(Duration::from_millis(50));
    say!("\n--- {what}");
}
