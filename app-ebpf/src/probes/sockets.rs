//! What exists now: a record for each socket of a namespace, in whatever state.

use aya_ebpf::helpers::generated::bpf_seq_write;
use bytemuck::{Pod, Zeroable as _};
use socklife_abi::{
    event::state,
    queued::{Flow, Memory, SkbQueue},
    socket::{IN_ACCEPT_QUEUE, MAPPED, Socket, UNKNOWN_IDLE, pending},
};

use crate::{
    emit::passes,
    maps::global,
    mem::{Mem as _, Obj, Probe, off},
    probes::snapshot::IterTcp,
    sock::{Req, Sock, Tuple},
};

/// The socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn sockets_iter(context: *const IterTcp) -> i32 {
    told(context);
    0
}

/// The socket, and how far its data has come.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn sockets_flow_iter(context: *const IterTcp) -> i32 {
    if let Some(sock) = told(context) {
        tell(context, &sock.map_or(Flow::zeroed(), Sock::flow));
    }
    0
}

/// The socket, how far its data has come, and what its queues hold. A record is made of pieces: the stack is small.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn sockets_queues_iter(context: *const IterTcp) -> i32 {
    let Some(sock) = told(context) else { return 0 };
    tell(context, &sock.map_or(Flow::zeroed(), Sock::flow));
    let Some(sock) = sock else {
        for _ in 0..5 {
            tell(context, &SkbQueue::zeroed());
        }
        tell(context, &Memory::zeroed());
        return 0;
    };
    tell(context, &sock.receive_queue());
    tell(context, &sock.out_of_order_queue());
    tell(context, &sock.backlog_queue());
    tell(context, &sock.write_queue());
    tell(context, &sock.retransmit_queue());
    tell(context, &sock.memory());
    0
}

/// Writes the socket if the filter lets it through, and gives the sock if it has data.
#[inline(always)]
fn told(context: *const IterTcp) -> Option<Option<Sock<Probe>>> {
    // SAFETY: the program's own context.
    let sk = unsafe { (&raw const (*context).sk_common).read_volatile() };
    if sk.is_null() {
        return None;
    }
    // SAFETY: as above.
    let uid = unsafe { (&raw const (*context).uid).read_volatile() };
    let socket = describe(Obj::new(sk), uid)?;
    tell(context, &socket);
    let full = Probe::tcp(sk).filter(|_| u32::from(socket.state) != state::LISTEN);
    Some(full)
}

/// Writes a piece of a record. Where the page is full the kernel throws away what was written of this socket, and calls
/// again with it.
#[inline(always)]
fn tell<T: Pod>(context: *const IterTcp, piece: &T) {
    // SAFETY: the context's own pointers, and a piece of the size that is named.
    unsafe {
        let meta = (&raw const (*context).meta).read_volatile();
        let seq = (&raw const (*meta).seq).read_volatile();
        bpf_seq_write(seq, core::ptr::from_ref(piece).cast_mut().cast(), size_of::<T>() as u32);
    }
}

/// A `struct sock`, a `request_sock` or a timewait sock: they begin alike (`struct sock_common`). `None`: nobody asked.
#[inline(always)]
fn describe(common: Obj<Probe>, uid: u32) -> Option<Socket> {
    let sock = Sock(common);
    match sock.state() {
        state::NEW_SYN_RECV => {
            let req = Req(common);
            let listener = Probe::tcp(req.listener() as *const u8)?;
            let socket = wanted(sock, req.tuple(listener.is_ipv6()), state::NEW_SYN_RECV)?;
            Some(Socket {
                listener: Probe::cookie(listener),
                ..socket
            })
        }
        state::TIME_WAIT => {
            // FIN_WAIT2 without a socket is one as well.
            let socket = wanted(sock, sock.tuple(), u32::from(common.get(off!(tw_substate))))?;
            // Its cookie is not that of the connection.
            Some(Socket { cookie: 0, ..socket })
        }
        state => {
            let socket = wanted(sock.if_tcp()?, sock.tuple(), state)?;
            Some(full(sock, Socket { uid, ..socket }))
        }
    }
}

/// What all of them have, if the filter lets it through.
#[inline(always)]
fn wanted(sock: Sock<Probe>, tuple: Tuple, state: u32) -> Option<Socket> {
    let states = global!(FILTER.states);
    let netns = sock.netns();
    if (states != 0 && states & (1 << (state & 31)) == 0) || !passes(&tuple, netns) {
        return None;
    }
    Some(Socket {
        key: sock.key(),
        cookie: Probe::cookie(sock),
        listener: 0,
        inode: 0,
        saddr: tuple.saddr,
        daddr: tuple.daddr,
        recv_q: 0,
        send_q: 0,
        syn_queue: 0,
        syn_queue_limit: 0,
        netns,
        uid: 0,
        sport: tuple.sport,
        dport: tuple.dport,
        family: tuple.family,
        state: state as u8,
        flags: if tuple.mapped { MAPPED } else { 0 },
        timer: pending::UNKNOWN,
        idle_ms: UNKNOWN_IDLE,
    })
}

/// What only a full sock has.
#[inline(always)]
fn full(sock: Sock<Probe>, socket: Socket) -> Socket {
    let inode = sock.inode();
    if u32::from(socket.state) == state::LISTEN {
        let queues = sock.queues();
        return Socket {
            inode,
            recv_q: queues.accept_queue,
            send_q: queues.accept_queue_limit,
            syn_queue: queues.syn_queue,
            syn_queue_limit: queues.syn_queue_limit,
            ..socket
        };
    }
    let waits = sock.waits_for_accept();
    Socket {
        inode,
        recv_q: sock.recv_q(),
        send_q: sock.send_q(),
        flags: socket.flags | if waits { IN_ACCEPT_QUEUE } else { 0 },
        timer: sock.timer(),
        idle_ms: sock.idle_ms(),
        ..socket
    }
}
