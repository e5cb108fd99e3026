//! What events come to: state, without I/O. It cannot tell a live event from a recorded one.

mod acceptors;
pub mod books;
pub mod dwell;
pub mod figures;
pub mod holders;
mod listener;
mod listeners;
pub mod reconcile;
pub mod sampled;
pub mod segments;
pub mod skbs;
mod waiters;
mod waits;

#[cfg(test)]
pub mod sample;

pub use acceptors::{Acceptor, Acceptors};
pub use figures::Figures;
pub use holders::Holders;
pub use listener::{Key, Listener, Process};
pub use listeners::Listeners;
pub use skbs::Skbs;
pub use waiters::Oldest;
pub use waits::{Summary, Waits};
