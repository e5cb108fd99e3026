//! The parts of a socket's life.

mod accept;
mod bind;
mod connect;
mod cookie;
mod listen;
mod state;
