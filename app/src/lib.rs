//! What happened to this connection? socklife tells the life of TCP sockets, seen with eBPF.
//!
//! The way of an event: the programs of `app-ebpf` write a record to a ring buffer; [`kernel`] loads and attaches them
//! and hands the records out; [`event`] decodes; [`model`] is what events come to, [`view`] what is shown of that, [`output`]
//! how; [`cli`] has one file for each subcommand.
// A closed standard error is a panic there; `say!` is for that.
#![warn(clippy::print_stderr)]

mod balance;
mod capacity;
pub mod cli;
mod clock;
mod comm;
mod ending;
pub mod event;
mod holders;
pub mod kernel;
pub mod model;
pub mod netns;
mod older;
pub mod output;
mod pids;
mod proc;
pub mod scene;
mod self_check;
mod server;
mod sock_diag;
mod stream;
pub mod view;
mod watch;
