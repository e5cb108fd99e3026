//! What is shown of a model. How it is shown is [`output`](crate::output)'s matter.

pub mod capacity;
pub mod drops;
pub mod histogram;
pub mod queues;
pub mod reconcile;
pub mod segment;
pub mod skb_allocs;
pub mod sockets;
