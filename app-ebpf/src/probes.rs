//! The parts of a socket's life.

/// One program for each place where a handler is called: its number tells which hook ran.
macro_rules! at_each {
    ($hook:ident($context:ty) $handler:ident: $($symbol:ident = $program:ident),+ $(,)?) => {$(
        #[$hook]
        pub fn $symbol(context: $context) -> u32 {
            $handler(&context, Program::$program);
            0
        }
    )+};
}

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
