//! Hooks: where programs attach, and which stand in for which. The [`TABLE`] has them all.

mod table;

use std::fmt;

use clap::ValueEnum;
use socklife_abi::{event::Kind, program::Program};

pub use table::TABLE;

/// A class of hooks: what a kernel, or its policy, admits or refuses as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// BPF trampolines (fentry, fexit) and BTF tracepoints; kprobes where a trampoline's program would miss something.
    Fentry,
    /// kprobes, kretprobes and raw tracepoints.
    Kprobe,
    /// Neither: tracepoints, `sock_ops`, cgroup hooks.
    Tracepoint,
}

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Entry of a function, by trampoline.
    Fentry(&'static str),
    /// Return of a function, by trampoline.
    Fexit(&'static str),
    /// Entry of a function, by breakpoint or ftrace.
    Kprobe(&'static str),
    /// Return of a function, likewise.
    Kretprobe(&'static str),
    /// A tracepoint with typed arguments.
    TpBtf(&'static str),
    /// The same, for a program that needs arguments which not every kernel's tracepoint has.
    TpBtfNamed(&'static str, &'static str),
    /// A tracepoint with untyped arguments.
    RawTp(&'static str),
    /// The same, for a program that needs arguments which not every kernel's tracepoint has.
    RawTpNamed(&'static str, &'static str),
    /// A tracepoint's record; needs tracefs.
    Tracepoint(&'static str, &'static str),
    /// TCP's callbacks, at the root cgroup.
    SockOps,
    /// socket(2), at the root cgroup.
    SockCreate,
    /// bind(2) of an IPv4 socket, at the root cgroup.
    PostBind4,
    /// bind(2) of an IPv6 socket, at the root cgroup.
    PostBind6,
    /// The last descriptor of a socket is closed, at the root cgroup.
    SockRelease,
    /// A walk over the kernel's objects of a kind, when it is asked for.
    Iter(&'static str),
}

impl At {
    /// The kernel function whose parameters the program reads.
    pub fn function(self) -> Option<&'static str> {
        match self {
            Self::Fentry(function)
            | Self::Fexit(function)
            | Self::Kprobe(function)
            | Self::TpBtfNamed(_, function)
            | Self::RawTpNamed(_, function) => Some(function),
            Self::Kretprobe(_)
            | Self::TpBtf(_)
            | Self::RawTp(_)
            | Self::Tracepoint(..)
            | Self::SockOps
            | Self::SockCreate
            | Self::PostBind4
            | Self::PostBind6
            | Self::SockRelease
            | Self::Iter(_) => None,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fentry(function) => write!(f, "fentry:{function}"),
            Self::Fexit(function) => write!(f, "fexit:{function}"),
            Self::Kprobe(function) => write!(f, "kprobe:{function}"),
            Self::Kretprobe(function) => write!(f, "kretprobe:{function}"),
            Self::TpBtf(name) | Self::TpBtfNamed(name, _) => write!(f, "tp_btf:{name}"),
            Self::RawTp(name) | Self::RawTpNamed(name, _) => write!(f, "raw_tp:{name}"),
            Self::Tracepoint(category, name) => write!(f, "tp:{category}:{name}"),
            Self::SockOps => f.write_str("sock_ops"),
            Self::SockCreate => f.write_str("cgroup:sock_create"),
            Self::PostBind4 => f.write_str("cgroup:post_bind4"),
            Self::PostBind6 => f.write_str("cgroup:post_bind6"),
            Self::SockRelease => f.write_str("cgroup:sock_release"),
            Self::Iter(target) => write!(f, "iter:{target}"),
        }
    }
}

/// A program and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The program.
    pub program: Program,
    /// Where it attaches.
    pub at: At,
}

/// One way to see something: all its hooks together.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// The classes it belongs to.
    pub classes: &'static [Class],
    /// What to attach, in this order. Of two at one function the last runs first (`bpf_trampoline_link_prog`), of two at
    /// a tracepoint the first.
    pub hooks: &'static [Hook],
    /// What it cannot tell and a better one can.
    pub cannot: &'static [&'static str],
}

impl Rung {
    /// Whether two programs stand at the place of this one: what one cannot do, because it is at work already, the other
    /// does.
    pub fn doubles(&self, hook: &Hook) -> bool {
        self.hooks.iter().filter(|other| other.at == hook.at).count() > 1
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hook) in self.hooks.iter().enumerate() {
            if self.hooks[..i].iter().all(|before| before.at != hook.at) {
                write!(f, "{}{}", if i == 0 { "" } else { " + " }, hook.at)?;
            }
        }
        Ok(())
    }
}

/// What it means that a row has no rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// socklife does not start.
    Required,
    /// Its events are not seen, and that is said.
    Optional,
}

/// A part of a socket's life.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it sees, in a few words.
    pub name: &'static str,
    /// The set of events that it sends, or that are poorer without it.
    pub feeds: u64,
    /// Whether socklife can do without.
    pub need: Need,
    /// Best first.
    pub rungs: &'static [Rung],
}

impl Row {
    /// Whether an event of this set is fed by the row.
    pub fn serves(&self, kinds: u64) -> bool {
        self.feeds & kinds != 0
    }

    /// Whether its programs run for each packet: they never help others out.
    pub fn is_per_packet(&self) -> bool {
        self.feeds & !Kind::ON_REQUEST == 0
    }
}

/// The name of the hook that sent an event: `via` in output. A program stands at one place only.
pub fn via(program: u16) -> Option<String> {
    hooks()
        .find(|hook| hook.program as u16 == program)
        .map(|hook| hook.at.to_string())
}

fn hooks() -> impl Iterator<Item = &'static Hook> {
    TABLE.iter().flat_map(|row| row.rungs).flat_map(|rung| rung.hooks)
}

#[cfg(test)]
mod tests {
    use socklife_abi::{config::Filter, skb::SINGLY};

    use std::collections::HashMap;

    use super::{Class, Kind, Program, TABLE, ValueEnum as _, hooks, via};

    #[test]
    fn every_program_has_a_place() {
        // `sockets` runs these by itself: they see no event.
        let alone = [
            Program::SocketsIter,
            Program::SocketsFlowIter,
            Program::SocketsQueuesIter,
        ];
        for program in Program::ALL.iter().filter(|program| !alone.contains(program)) {
            assert!(via(*program as u16).is_some(), "{} is in no rung", program.symbol());
        }
    }

    #[test]
    fn no_program_has_two_places() {
        let mut places = HashMap::new();
        for hook in hooks() {
            let place = places.entry(hook.program).or_insert(hook.at.to_string());
            assert_eq!(*place, hook.at.to_string(), "{}", hook.program.symbol());
        }
    }

    #[test]
    fn what_runs_for_each_packet_is_for_nobody_who_does_not_ask() {
        let rows = TABLE.iter().filter(|row| row.is_per_packet());
        assert!(rows.clone().all(|row| !row.serves(Filter::ANY.events)));
        let of = |kinds: u64| rows.clone().filter(|row| row.serves(kinds)).count();
        assert_eq!((of(Kind::set(&[Kind::SkbStep])), of(SINGLY)), (10, 7));
        assert_eq!(rows.clone().count(), 17);
    }

    #[test]
    fn every_row_has_a_rung_in_every_class() {
        for row in TABLE {
            for class in Class::value_variants() {
                assert!(
                    row.rungs.iter().any(|rung| rung.classes.contains(class)),
                    "{} cannot be seen with {class:?}",
                    row.name
                );
            }
        }
    }
}
