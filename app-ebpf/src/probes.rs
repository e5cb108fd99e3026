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

/// The same with two programs at each place (see `twice`).
macro_rules! twice_at_each {
    ($hook:ident($context:ty) $handler:ident:
        $($symbol:ident, $second:ident = $program:ident, $program_second:ident);+ $(;)?) => {$(
        #[$hook]
        pub fn $symbol(context: $context) -> u32 {
            $handler(&context, Program::$program, Program::$program);
            0
        }

        #[$hook]
        pub fn $second(context: $context) -> u32 {
            $handler(&context, Program::$program, Program::$program_second);
            0
        }
    )+};
}

mod accept;
mod accept_failed;
mod accept_queue;
mod accept_uring;
mod bind;
mod connect;
mod cookie;
mod descriptors;
mod drops;
mod error;
mod listen;
mod look;
mod process;
mod refresh;
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
pub mod waiting;
mod window;
