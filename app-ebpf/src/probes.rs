//! The parts of a socket's life.

mod accept;
mod accept_queue;
mod bind;
mod connect;
mod cookie;
mod descriptors;
mod drops;
mod listen;
mod look;
mod process;
mod reset;
mod retransmit;
mod skb_alloc;
mod skb_step;
mod snapshot;
mod sockets;
mod state;
mod syn;
mod syn_cookie;
mod syn_queue;
mod touch;
mod window;
