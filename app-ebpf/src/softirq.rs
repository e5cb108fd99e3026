//! What one hook on the SYN path leaves for the next. The path runs in softirq, or with softirqs off, from its beginning
//! to its end on one CPU, so there is one of each for a CPU.

use socklife_abi::{event::Queues, table::RequestKey};

use crate::maps::SOFTIRQ;

/// See the fields: each says who writes it and who takes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Softirq {
    /// `tcp_conn_request`, from entry to return: its arguments, and the listener as the SYN found it.
    pub syn_listener: u64,
    pub syn_skb: u64,
    pub syn_queues: Queues,
    /// Something became of the SYN: [`OTHERS`], or [`JOINED`].
    pub taken: u32,
    /// `inet_reqsk_alloc` gave nothing.
    pub no_memory: u32,
    /// `inet_csk_reqsk_queue_hash_add`, kprobe: its arguments.
    pub hash_add_listener: u64,
    pub hash_add_req: u64,
    /// `inet_csk_reqsk_queue_add`, from entry on: who gets which child. Taken at `PASSIVE_ESTABLISHED`.
    pub queue_listener: u64,
    pub queue_child: u64,
    /// `tcp_check_req`, from entry to return: its arguments.
    pub check_listener: u64,
    pub check_skb: u64,
    pub check_req: u64,
    /// A request's timer, from entry to return.
    pub timer_req: u64,
    pub timer_listener: u64,
    pub timer_cookie: u64,
    pub timer_key: RequestKey,
    pub timer_listening: u32,
    pub timer_retrans: u32,
    /// `cookie_v4_check` and `cookie_v6_check`, from entry to return, where the segment may be gone: the listener, 0 for
    /// a segment that is no ACK, and what the segment said.
    pub cookie_listener: u64,
    pub cookie_key: RequestKey,
    /// The dropped segment that ended a half-open connection, or was refused for it.
    pub dropped_skb: u64,
    /// The final ACK that met a full accept queue and is about to be dropped: `accept_refused` has told.
    pub refused_skb: u64,
    /// What a qdisc is about to drop, and its reason. Taken where it is freed.
    pub qdisc_skb: u64,
    pub qdisc_reason: u64,
}

/// A cookie, a child.
pub const OTHERS: u32 = 1;
/// A request that joined the SYN queue of `syn_listener`.
pub const JOINED: u32 = 2;

/// This CPU's.
#[inline(always)]
pub fn softirq() -> Option<&'static mut Softirq> {
    // SAFETY: this CPU's slot; the path that uses it is not interrupted by itself.
    SOFTIRQ.get_ptr_mut(0).map(|softirq| unsafe { &mut *softirq })
}
