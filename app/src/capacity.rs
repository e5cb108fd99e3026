//! How many TCP connections this host can hold, and which limit binds first.
//!
//! Three steps that know nothing of each other: [`host`], [`process`], [`cgroup`], [`listeners`] and [`measure`] read (from
//! a root that tests choose), [`limits`] does the arithmetic, and [`view`](crate::view::capacity) shows it. A number that
//! could not be read stays unknown, with the reason.

mod accept_queues;
mod cgroup;
pub mod clients;
pub mod host;
pub mod limits;
pub mod listeners;
mod measure;
pub mod memory;
pub mod process;
pub mod reading;

use std::{collections::HashSet, net::SocketAddr};

use clap::ValueEnum;
use ipnet::IpNet;

use crate::holders;
use clients::Population;
use host::Host;
use limits::{Limit, Place, Subject};
use listeners::Listener;
use memory::Memory;
use process::Process;
use reading::Root;

/// What a server has for each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// A process, as `socklife serve` and inetd do.
    Fork,
    /// A thread.
    Thread,
    /// A descriptor and nothing else: an event loop with epoll(7).
    #[default]
    Event,
}

impl Model {
    /// As `--model` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Thread => "thread",
            Self::Event => "event",
        }
    }
}

/// What is asked.
pub struct Question {
    /// The listeners in question; none: whatever is started from here.
    pub listen: Vec<SocketAddr>,
    /// Where clients may be; none: anywhere.
    pub clients: Vec<IpNet>,
    /// What a connection takes.
    pub model: Model,
}

/// The answer.
pub struct Report {
    /// What a connection takes.
    pub model: Model,
    /// Whose limits they are.
    pub processes: Vec<Process>,
    /// Every limit, the one that binds first at the front.
    pub limits: Vec<Limit>,
    /// The listeners that were asked for and exist; all of this namespace where none was asked for.
    pub listeners: Vec<Serving>,
    /// Whether the listeners were asked for.
    pub asked: bool,
    /// What a connection was measured to take.
    pub memory: Memory,
    /// What is the host's.
    pub host: Host,
}

/// A listener with what its process has open.
pub struct Serving {
    /// The listener.
    pub listener: Listener,
    /// Its oldest holder, where one is visible.
    pub process: Option<Process>,
    /// How many more hold it.
    pub more_holders: u32,
}

fn count(sockets: &HashSet<u64>) -> u64 {
    u64::try_from(sockets.len()).unwrap_or(u64::MAX)
}

/// Reads, measures, and computes.
pub fn survey(question: &Question) -> Report {
    let root = Root::system();
    let host = Host::read(&root);
    let mut all = listeners::read(&root);
    accept_queues::fill(&mut all);
    let holding = listeners::holders(&all);
    let asked = !question.listen.is_empty();
    let mut listeners = Vec::new();
    let mut places = Vec::new();
    let mut processes: Vec<Process> = Vec::new();
    let own = || Process::read(&root, std::process::id(), true, question.model);
    let mut know = |process: &Process| {
        let known = processes.iter().position(|other| other.pid == process.pid);
        known.unwrap_or_else(|| {
            processes.push(process.clone());
            processes.len() - 1
        })
    };
    let serving = |listener: Listener| {
        let found = listener.sockets.iter().find_map(|inode| holding.get(inode));
        Serving {
            more_holders: found.map_or(0, |holders| holders.more),
            process: found.map(|holders| Process::read(&root, holders.first.pid, false, question.model)),
            listener,
        }
    };
    if asked {
        for address in &question.listen {
            let serving = listeners::serving(&all, *address).cloned().map(&serving);
            let population = Population::new(&question.clients, *address, &host, clients::is_local);
            let held = serving.as_ref().map(|serving| &serving.listener.held);
            let process = serving.as_ref().and_then(|serving| serving.process.as_ref());
            places.push(Place {
                address: *address,
                population,
                // Where nobody listens, whatever is started from here would.
                process: match &serving {
                    None => Some(know(&own())),
                    Some(serving) => serving.process.as_ref().map(&mut know),
                },
                connections: serving.as_ref().map(|serving| serving.listener.connections),
                held: held.map(count),
                own: held
                    .zip(process)
                    .map(|(held, process)| count(&holders::held_by(process.pid, held))),
            });
            listeners.extend(serving);
        }
    } else {
        let own = know(&own());
        listeners.extend(all.into_iter().map(&serving));
        for address in clients::wildcards(&question.clients) {
            places.push(Place {
                address,
                population: Population::new(&question.clients, address, &host, clients::is_local),
                process: Some(own),
                connections: None,
                held: None,
                own: None,
            });
        }
    }
    let ipv6 = places.iter().any(|place| place.address.is_ipv6());
    let memory = measure::measure(&root, question.model, ipv6);
    let limits = limits::all(&Subject {
        model: question.model,
        host: &host,
        processes: &processes,
        places: &places,
        memory: &memory,
    });
    Report {
        model: question.model,
        processes,
        limits,
        listeners,
        asked,
        memory,
        host,
    }
}
