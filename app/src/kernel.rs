//! Everything that touches bpf(2): the table of hooks, what they attach to, and the way of an event out of the kernel.

mod btf;
mod busy;
mod cgroup;
mod cookies;
mod counts;
mod hooks;
mod iterator;
mod layout;
mod loader;
mod look;
mod losses;
mod namespaces;
mod netstat;
mod object;
mod privilege;
mod probe_log;
pub mod reasons;
mod skbs;
mod snapshot;
mod sockets;
pub mod symbols;
mod tables;
mod tracefs;
mod tracer;

pub use hooks::{Class, Need, Row, TABLE, via};
pub use layout::VMLINUX;
pub use losses::{Loss, Losses, Stage, Told};
pub use netstat::Netstat;
pub use privilege::{LOOK_AT_OTHERS, Privileges, drop_all_but_bpf};
pub use skbs::SkbCounts;
pub use sockets::{Found, Sockets};
pub use tracer::{Counters, Follow, RowReport, Tracer, Wanted};
