//! A listener's two queues: what goes in, what comes out, what is refused, and why; against the kernel's own counters.

pub mod accept_queue;
pub mod cookies;
pub mod syn_queue;
pub mod uring;
pub mod varieties;
pub mod waiting;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;
use socklife::scene::{
    peer::{self, Peer},
    queues::{listener, set_backlog},
};

use crate::harness::{Class, Events, Namespace, Tracer};

const KINDS: &str = "syn_queued,synack_sent,synack_retransmitted,cookie_sent,cookie_accepted,cookie_rejected,\
                     syn_refused,half_open_ended,accept_deferred,accept_queued,accept_refused,accepted,never_accepted,connect_failed";

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A namespace whose peers are routed, and a tracer of it.
fn start(class: Class) -> (Namespace, Tracer) {
    start_with(class, KINDS)
}

/// The same for other kinds.
fn start_with(class: Class, kinds: &str) -> (Namespace, Tracer) {
    let namespace = Namespace::new();
    namespace.run(|| peer::prepare().unwrap());
    let tracer = Tracer::start(class, &namespace, &["--event", kinds]);
    (namespace, tracer)
}

/// Both protocols.
fn both(mut act: impl FnMut(IpAddr)) {
    act(V4);
    act(V6);
}

fn port(event: &Value, name: &str) -> u16 {
    u16::try_from(event[name].as_u64().unwrap()).unwrap()
}

/// The kinds of the events of one connection, in order of time; accept(2) on another CPU may be first.
fn story(events: &Events, client: SocketAddr) -> Vec<&Value> {
    let mut story: Vec<_> = events
        .all
        .iter()
        .filter(|event| event["rport"] == client.port() && event["raddr"] == client.ip().to_string())
        .collect();
    story.sort_by_key(|event| event["time_ns"].as_u64());
    story
}

fn kinds<'a>(story: &[&'a Value]) -> Vec<&'a str> {
    story.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// A figure that must be there.
fn ns(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_else(|| panic!("no {name}: {event}"))
}

/// Ends it: it lost nothing, and what it counted is what the kernel counted.
fn ended(tracer: Tracer) -> Events {
    let events = tracer.stop();
    events.assert_whole();
    events.assert_reconciled();
    events
}

/// Half-open peers of a listener whose backlog is then made so small that its accept queue holds one.
fn squeezed(ip: IpAddr, count: u16) -> (TcpListener, Vec<Peer>) {
    let listener = listener(ip, 64).unwrap();
    let peers = (0..count)
        .map(|number| Peer::half_open(listener.local_addr().unwrap(), number).unwrap())
        .collect();
    set_backlog(&listener, 0).unwrap();
    (listener, peers)
}
