//! The types that the eBPF programs and user space share: what others call `-common`.
#![no_std]
