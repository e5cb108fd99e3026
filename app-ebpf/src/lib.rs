//! `socklife_abi`: the types that the eBPF programs and user space share (what other projects call `-common`).
//!
//! `no_std` and free of aya, so that both sides build the same file: the list of events and their payloads
//! ([`event`]), the list of programs ([`program`]), the kernel fields the programs read ([`kernel`]), what the loader
//! sets ([`config`]), what both sides keep in tables ([`table`], [`skb`]), a socket as it is now ([`socket`]) with its
//! queues ([`queued`]), a step of a segment ([`step`]), and what can be lost ([`counter`]).
#![no_std]

mod abi {
    pub mod config;
    pub mod counter;
    mod data;
    pub mod event;
    pub mod kernel;
    pub mod program;
    pub mod queued;
    pub mod skb;
    pub mod socket;
    pub mod step;
    pub mod table;
}

pub use abi::{config, counter, event, kernel, program, queued, skb, socket, step, table};
