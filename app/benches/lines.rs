//! How fast records become lines: `cargo bench -p socklife -- json 2000000`, or `text`.

use std::time::Instant;

use bytemuck::Zeroable as _;
use socklife::{
    event::Event,
    output::{Format, Lines},
};
use socklife_abi::event::{
    Accepted, Closed, Connect, Connected, Envelope, HAS_TASK, Payload, Queues, State, SynQueued, UNKNOWN,
};

const QUEUES: Queues = Queues {
    listener: 1_290_887,
    syn_queue: 0,
    syn_queue_limit: 128,
    accept_queue: 1,
    accept_queue_limit: 128,
};

fn record<P: Payload>(task: bool, payload: P) -> Vec<u8> {
    let mut address = [0_u8; 16];
    address[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    let envelope = Envelope {
        time_ns: 12_345_678_901_234,
        cookie: 1_290_888,
        saddr: bytemuck::cast(address),
        daddr: bytemuck::cast(address),
        comm: *b"python3\0\0\0\0\0\0\0\0\0",
        sport: 8080,
        dport: 51_062,
        kind: P::KIND as u8,
        via: 3,
        flags: if task { HAS_TASK } else { 0 },
        family: 4,
        netns: 4_026_532_246,
        cpu: 1,
        pid: 15_386,
        tid: 15_386,
        ..Envelope::zeroed()
    };
    [bytemuck::bytes_of(&envelope), bytemuck::bytes_of(&payload)].concat()
}

/// What one healthy connection of `trace` with its commonest kinds comes to.
fn records() -> Vec<Vec<u8>> {
    let state = |oldstate, newstate| record(false, State { oldstate, newstate });
    vec![
        record(true, Connect::zeroed()),
        record(false, SynQueued { queues: QUEUES }),
        state(2, 1),
        record(true, Connected { handshake_ns: 54_321 }),
        state(3, 1),
        record(
            true,
            Accepted {
                queues: QUEUES,
                accept_wait_ns: 41_000,
                fd: 4,
                dead_ns: UNKNOWN,
                dead: 0,
                errno: 0,
                reserved: 0,
            },
        ),
        state(1, 4),
        record(
            true,
            Closed {
                lifetime_ns: 1_234_567,
                bytes_received: 512,
                bytes_sent: 4096,
                segs_in: 6,
                segs_out: 7,
                srtt_us8: 320,
                oldstate: 4,
                ..Closed::zeroed()
            },
        ),
    ]
}

fn main() {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let format = match arguments.first().map(String::as_str) {
        Some("text") => Format::Text,
        _ => Format::Json,
    };
    let wanted = arguments
        .get(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(2_000_000_u64);
    let records = records();
    let mut lines = Lines::new(format);
    let (mut out, mut done, mut bytes) = (Vec::with_capacity(1 << 17), 0_u64, 0_usize);
    let started = Instant::now();
    while done < wanted {
        for record in &records {
            let event = Event::decode(record).expect("a record of ours");
            lines.event(&event, &mut out).expect("it is written");
        }
        done += records.len() as u64;
        if out.len() > 1 << 16 {
            bytes += out.len();
            out.clear();
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    eprintln!(
        "{done} events in {elapsed:.3} s: {:.0} a second, {} bytes",
        done as f64 / elapsed,
        bytes + out.len()
    );
}
