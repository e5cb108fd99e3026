//! `socklife skb`: segments through the layers, with exact arithmetic.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
};

use serde_json::Value;
use socklife::kernel::TABLE;

use super::process::loaded;
use crate::harness::{
    Class, Events, Namespace, PATIENCE, Tracer,
    helper::{Server, client, cookie},
    socklife, until,
};

const BYTES: usize = 1009;

fn skb(class: Option<Class>, namespace: &Namespace, args: &[&str]) -> Command {
    let mut command = socklife();
    command.arg("skb").args(args);
    if let Some(class) = class {
        command.args(["--hooks", class.name()]);
    }
    command.args(["--netns", &namespace.inode.to_string()]);
    command
}

/// Two ends of a connection, and their cookies.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    listener: TcpListener,
    cookies: (u64, u64),
}

impl Pair {
    fn over(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (server, _) = listener.accept().unwrap();
        let cookies = (cookie(client.as_raw_fd()), cookie(server.as_raw_fd()));
        Self {
            client,
            server,
            listener,
            cookies,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Written in one call, and read in one: the one segment in between.
    fn exchange(&mut self, bytes: usize) {
        self.client.write_all(&vec![b'x'; bytes]).unwrap();
        let mut read = vec![0; bytes + 1];
        assert_eq!(self.server.read(&mut read).unwrap(), bytes);
    }
}

/// The steps of each segment, in order of time.
fn segments(events: &Events) -> Vec<Vec<&Value>> {
    let mut segments: Vec<Vec<&Value>> = Vec::new();
    for step in events.of("skb_step") {
        match segments.iter_mut().find(|steps| steps[0]["segment"] == step["segment"]) {
            Some(steps) => steps.push(step),
            None => segments.push(vec![step]),
        }
    }
    for steps in &mut segments {
        steps.sort_by_key(|step| step["time_ns"].as_u64());
    }
    segments
}

/// What a step is to show: function, layer, unit, headers that are there, headers pushed or (negative) pulled, and what the
/// sk_buff is to the one before.
type Expected = (&'static str, &'static str, &'static str, [i64; 3], i64, &'static str);

/// Of a segment with this header of IP. TCP's header has 20 bytes and 12 of timestamps, Ethernet's 14.
fn expected(class: Class, v6: bool) -> Vec<Expected> {
    let ip = if v6 { 40 } else { 20 };
    let pick = |v4, of_v6| if v6 { of_v6 } else { v4 };
    let (all, packet, segment, none) = ([32, ip, 14], [32, ip, 0], [32, 0, 0], [0; 3]);
    let to_ip = pick("ip_queue_xmit", "inet6_csk_xmit");
    let from_ip = pick("ip_finish_output2", "ip6_finish_output2");
    let (ip_rcv, tcp_rcv) = (pick("ip_rcv_core", "ip6_rcv_core"), pick("tcp_v4_rcv", "tcp_v6_rcv"));
    if class == Class::Tracepoint {
        return vec![
            ("net_dev_queue", "device", "frame", all, 0, "first"),
            ("net_dev_start_xmit", "device", "frame", all, 0, "same"),
            ("netif_rx", "device", "packet", packet, -14, "same"),
            ("netif_receive_skb", "device", "packet", packet, 0, "same"),
            ("skb_copy_datagram_iovec", "socket", "data", none, -32 - ip, "same"),
        ];
    }
    vec![
        ("tcp_sendmsg", "socket", "data", none, 0, ""),
        ("__tcp_transmit_skb", "tcp", "data", none, 0, "first"),
        (to_ip, "ip", "segment", segment, 32, "clone"),
        (from_ip, "ip", "packet", packet, ip, "same"),
        ("net_dev_queue", "device", "frame", all, 14, "same"),
        ("net_dev_start_xmit", "device", "frame", all, 0, "same"),
        ("netif_rx", "device", "packet", packet, -14, "same"),
        ("netif_receive_skb", "device", "packet", packet, 0, "same"),
        (ip_rcv, "ip", "packet", packet, 0, "same"),
        (tcp_rcv, "tcp", "segment", segment, -ip, "same"),
        ("tcp_queue_rcv", "tcp", "data", none, -32, "same"),
        ("skb_copy_datagram_iovec", "socket", "data", none, 0, "same"),
    ]
}

fn number(step: &Value, field: &str) -> i64 {
    step[field].as_i64().unwrap_or(0)
}

/// One segment over IPv4 and one over IPv6: each layer, with the headroom to the byte.
pub fn every_layer(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(skb(Some(class), &namespace, &["-o", "json", "--count", "2"]));
    let pairs = namespace.run(|| {
        ["127.0.0.1", "::1"].map(|address| {
            let mut pair = Pair::over(address);
            pair.exchange(BYTES);
            pair
        })
    });
    let events = tracer.wait();
    events.assert_whole();
    assert!(events.stderr.contains("2 segments in"), "{}", events.stderr);
    let segments = segments(&events);
    assert_eq!(segments.len(), 2, "{:#?}", events.all);
    for ((steps, pair), v6) in segments.iter().zip(&pairs).zip([false, true]) {
        let told: Vec<_> = steps.iter().map(|step| function(step)).collect();
        let expected = expected(class, v6);
        let functions: Vec<_> = expected.iter().map(|step| step.0).collect();
        assert_eq!(told, functions, "{steps:#?}");
        let mut headroom = None;
        for (step, (_, layer, unit, [tcp, ip, link], moved, kin)) in steps.iter().zip(expected) {
            assert_eq!((&step["layer"], &step["unit"]), (&layer.into(), &unit.into()), "{step}");
            assert_eq!(step["seq"], steps[0]["seq"], "{step}");
            assert_eq!(step["netns"], namespace.inode, "{step}");
            assert_ends(step, pair);
            if kin.is_empty() {
                assert_eq!(step["written"], BYTES, "{step}");
                assert_eq!(step["pid"], std::process::id(), "{step}");
                continue;
            }
            assert_eq!((&step["payload"], &step["skb"]), (&BYTES.into(), &kin.into()), "{step}");
            let headers = ["tcp_header", "ip_header", "link_header"].map(|field| number(step, field));
            assert_eq!(headers, [tcp, ip, link], "{step}");
            assert_eq!(number(step, "len"), BYTES as i64 + tcp + ip + link, "{step}");
            assert_eq!(number(step, "pushed") - number(step, "pulled"), moved, "{step}");
            let now = number(step, "headroom");
            assert_eq!(headroom.unwrap_or(now + moved) - now, moved, "{step}");
            headroom = Some(now);
            assert_eq!((number(step, "buffer"), number(step, "copies")), (1, 0), "{step}");
            let at_device = layer == "device";
            assert!(!at_device || step["dev"] == "lo" && step["ifindex"] == 1, "{step}");
        }
        let read = steps.last().unwrap();
        assert_eq!(
            (&read["read"], &read["pid"]),
            (&BYTES.into(), &std::process::id().into()),
            "{read}"
        );
    }
}

fn function(step: &Value) -> &str {
    let via = step["via"].as_str().unwrap();
    via.rsplit(':').next().unwrap()
}

/// This end is the sender's on the way down, and the receiver's on the way up.
fn assert_ends(step: &Value, pair: &Pair) {
    let (client, server) = (pair.client.local_addr().unwrap(), pair.address());
    let (here, there, cookie) = if step["direction"] == "send" {
        (client, server, pair.cookies.0)
    } else {
        (server, client, pair.cookies.1)
    };
    assert_eq!(step["laddr"], here.ip().to_string(), "{step}");
    assert_eq!(
        (&step["lport"], &step["rport"]),
        (&here.port().into(), &there.port().into()),
        "{step}"
    );
    // On the way up nobody knows the socket before TCP.
    let known = step["direction"] == "send" || ["tcp_queue_rcv", "skb_copy_datagram_iovec"].contains(&function(step));
    assert_eq!(step["cookie"].is_u64(), known, "{step}");
    assert!(!known || step["cookie"] == cookie, "{step}");
}

/// What waits in the receive queue takes in what comes after it; the reader takes it out bit by bit.
pub fn merged(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(skb(Some(class), &namespace, &["-o", "json", "--count", "2"]));
    let pair = namespace.run(|| {
        let mut pair = Pair::over("127.0.0.1");
        pair.client.write_all(&[b'x'; 101]).unwrap();
        pair.client.write_all(&[b'x'; 103]).unwrap();
        for bytes in [7, 101 + 103 - 7] {
            pair.server.read_exact(&mut vec![0; bytes]).unwrap();
        }
        pair
    });
    // With tracepoints alone the end of the second is not seen.
    let events = if class == Class::Tracepoint {
        until(PATIENCE, || tracer.count("skb_copy_datagram_iovec") == 2);
        tracer.stop()
    } else {
        tracer.wait()
    };
    events.assert_whole();
    let segments = segments(&events);
    assert_eq!(segments.len(), 2, "{:#?}", events.all);
    let (first, second) = (&segments[0], &segments[1]);
    let reads: Vec<_> = first.iter().filter(|step| !step["read"].is_null()).collect();
    let sizes: Vec<_> = reads
        .iter()
        .map(|step| (number(step, "read"), number(step, "len")))
        .collect();
    assert_eq!(sizes, [(7, 204), (197, 204)], "{first:#?}");
    assert_eq!(number(reads[0], "payload"), 101);
    let last = second.last().unwrap();
    assert!(second.iter().all(|step| step["read"].is_null()), "{second:#?}");
    assert_eq!(number(last, "payload"), 103);
    assert_eq!(last["merged"] == true, class != Class::Tracepoint, "{last}");
    drop(pair);
}

/// What the writer asks not to be copied loopback copies, lest the reader keeps the writer's pages: that is seen.
pub fn copied(class: Class) {
    const MSG_ZEROCOPY: i32 = 0x0400_0000;
    const SO_ZEROCOPY: i32 = 60;
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(skb(Some(class), &namespace, &["-o", "json", "--count", "1"]));
    let _pair = namespace.run(|| {
        let mut pair = Pair::over("127.0.0.1");
        let (fd, on, data) = (pair.client.as_raw_fd(), 1_i32, vec![b'x'; BYTES]);
        // SAFETY: an option of the size that is said, and bytes that outlive what is sent of them: they are read below.
        let sent = unsafe {
            assert_eq!(
                libc::setsockopt(fd, libc::SOL_SOCKET, SO_ZEROCOPY, (&raw const on).cast(), 4),
                0
            );
            libc::send(fd, data.as_ptr().cast(), BYTES, MSG_ZEROCOPY)
        };
        assert_eq!(sent, BYTES as isize);
        pair.server.read_exact(&mut vec![0; BYTES]).unwrap();
        (pair, data)
    });
    let events = tracer.wait();
    events.assert_whole();
    let segments = segments(&events);
    assert_eq!(segments.len(), 1, "{:#?}", events.all);
    let read = segments[0].last().unwrap();
    assert_eq!((&read["read"], &read["copies"]), (&BYTES.into(), &1.into()), "{read}");
    let written = segments[0].iter().find(|step| !step["written"].is_null());
    assert_eq!(written.is_some(), class != Class::Tracepoint);
    assert!(written.is_none_or(|step| step["zero_copy"] == true), "{written:?}");
    // Behind the device: how far behind, kernels differ.
    let before = segments[0].iter().rfind(|step| step["copies"] == 0).unwrap();
    assert_eq!(before["direction"], "receive", "{before}");
}

/// Filters, whoever is "this end"; and the kernel counts what the rate leaves out.
pub fn chosen(class: Class) {
    const COUNT: usize = 7;
    let namespace = Namespace::new();
    let (mut pair, mut other) = namespace.run(|| (Pair::over("127.0.0.1"), Pair::over("127.0.0.1")));
    let wanted = pair.address().port().to_string();
    let table: [(&[&str], bool); 3] = [
        (&["--lport", &wanted], true),
        (&["--rport", &wanted, "--addr", "127.0.0.0/8"], true),
        (&["--port", &wanted, "-6"], false),
    ];
    let tracers: Vec<_> = table
        .iter()
        .map(|(filter, _)| {
            let args = [&["-o", "json", "--count", "0", "--rate", "3"], *filter].concat();
            Tracer::spawn(skb(Some(class), &namespace, &args))
        })
        .collect();
    namespace.run(move || {
        for _ in 0..COUNT {
            pair.exchange(BYTES);
            other.exchange(BYTES + 2);
        }
    });
    for (tracer, (filter, passes)) in tracers.into_iter().zip(table) {
        let events = tracer.stop();
        let steps = segments(&events);
        let mut left_out = 0;
        for lost in events.of("lost") {
            assert_eq!(
                (&lost["stage"], &lost["kind"]),
                (&"sampled".into(), &"skb_step".into()),
                "{lost}"
            );
            left_out += lost["count"].as_u64().unwrap() as usize;
        }
        let all = if passes { COUNT } else { 0 };
        assert_eq!(steps.len() + left_out, all, "{filter:?}: {}", events.stderr);
        // A second may begin in between.
        assert!(
            !passes || (left_out > 0 && steps.len() <= 6),
            "{filter:?}: {}",
            events.stderr
        );
        for steps in &steps {
            let payloads = steps.iter().filter(|step| step["written"].is_null());
            assert!(
                payloads.clone().all(|step| step["payload"] == BYTES),
                "{filter:?}: {steps:#?}"
            );
        }
    }
}

/// `--pid`: what the process writes, and nothing that it reads.
pub fn of_process(class: Class) {
    let namespace = Namespace::new();
    let server = namespace.run(|| Server::start(&["127.0.0.1:0"], 1));
    let address = server.addresses[0];
    // The client's one write, and the two of the server's answer.
    let pids = [(std::process::id(), 1), (server.pid(), 2)];
    let tracers = pids.map(|(pid, _)| {
        let pid = pid.to_string();
        Tracer::spawn(skb(Some(class), &namespace, &["-o", "json", "--pid", &pid]))
    });
    let client = namespace.run(move || client(address, BYTES));
    server.finish();
    for (tracer, (pid, count)) in tracers.into_iter().zip(pids) {
        let read = |tracer: &Tracer| tracer.count("\"read\"") + tracer.count("\"merged\"");
        until(PATIENCE / 10, || read(&tracer) >= count);
        let events = tracer.stop();
        events.assert_whole();
        let segments = segments(&events);
        assert_eq!(segments.len(), count, "{pid}: {:#?}", events.all);
        let port = if count == 1 {
            client.local.port()
        } else {
            address.port()
        };
        assert!(
            segments.iter().all(|steps| steps[0]["lport"] == port),
            "{:#?}",
            events.all
        );
    }
}

/// What runs for each packet is attached for nobody else, not even where hooks help each other out to find a process's
/// sockets.
pub fn not_attached_otherwise() {
    let namespace = Namespace::new();
    let before = loaded();
    let mut trace = socklife();
    let (netns, pid) = (namespace.inode.to_string(), std::process::id().to_string());
    trace.args(["trace", "--netns", &netns, "--pid", &pid]);
    let tracer = Tracer::spawn(trace);
    let attached = aya::programs::loaded_programs().filter_map(Result::ok);
    let attached: Vec<_> = attached
        .filter(|info| !before.contains(&info.id()))
        .filter_map(|info| info.name_as_str().map(str::to_owned))
        .collect();
    tracer.stop().assert_whole();
    assert!(attached.iter().any(|name| name.starts_with("state_")), "{attached:?}");
    let per_packet = TABLE.iter().filter(|row| row.is_per_packet());
    for hook in per_packet.flat_map(|row| row.rungs).flat_map(|rung| rung.hooks) {
        // The kernel keeps 15 bytes of a name.
        let symbol = hook.program.symbol();
        let name = &symbol[..symbol.len().min(15)];
        assert!(!attached.iter().any(|other| other == name), "{name}: {attached:?}");
    }
}

/// The drawing: columns that line up, and `data` that moves.
pub fn drawing(class: Class) {
    let namespace = Namespace::new();
    let tracer = Tracer::spawn(skb(Some(class), &namespace, &["--count", "1"]));
    let _pair = namespace.run(|| {
        let mut pair = Pair::over("127.0.0.1");
        pair.exchange(BYTES);
        pair
    });
    let events = tracer.wait();
    events.assert_whole();
    let lines: Vec<_> = events
        .all
        .iter()
        .map(|line| line.as_str().unwrap_or_default())
        .collect();
    assert!(
        lines[0].contains(" segment 1: 127.0.0.1 ") && lines[0].contains(", 1,009 bytes, seq "),
        "{lines:#?}"
    );
    let steps = expected(class, false);
    let drawn = &lines[2..2 + steps.len()];
    let column = |line: &str, title: &str| {
        let at = lines[1]
            .chars()
            .collect::<String>()
            .find(title)
            .map(|at| lines[1][..at].chars().count());
        line.chars().skip(at.unwrap()).collect::<String>()
    };
    for (line, (function, layer, unit, _, moved, _)) in drawn.iter().zip(&steps) {
        assert!(column(line, "LAYER").starts_with(layer), "{lines:#?}");
        assert!(column(line, "UNIT").starts_with(unit), "{lines:#?}");
        assert!(
            column(line, "FUNCTION").starts_with(&format!("{function} ")),
            "{lines:#?}"
        );
        let moved = if *moved == 0 {
            "- ".to_owned()
        } else {
            format!("{moved:+} ")
        };
        assert!(column(line, "HEADERS").starts_with(&moved), "{lines:#?}");
    }
    let frame = drawn.iter().find(|line| line.contains("net_dev_start_xmit")).unwrap();
    assert!(frame.contains("…▸EEEEIIIIITTTTTTTT█"), "{frame}");
    let packet = drawn.iter().find(|line| line.contains("netif_receive_skb")).unwrap();
    assert!(packet.contains("…····▸IIIIITTTTTTTT█"), "{packet}");
    let end = lines[2 + steps.len()];
    let end = end
        .strip_prefix("0 copies of the payload between the layers, 1 buffer; ")
        .expect(end);
    let how = if class == Class::Tracepoint {
        "read to its end"
    } else {
        "copied in by the write and out by the read, and nowhere else"
    };
    assert_eq!(end, how, "{lines:#?}");
}
