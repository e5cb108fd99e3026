//! A segment on its way through the layers, as a table with a picture of its buffer.

use std::fmt::Write as _;

use socklife_abi::{
    event::SkbStep,
    step::{MERGED, ZERO_COPY, kin, place, unit},
};

use crate::{
    clock::Clock,
    event::{
        Task,
        skb_step::{has_skb, layer, moved, name},
    },
    kernel::via,
    model::segments::{End, Segment, Step},
    output::{Columns, Comm, Grouped, Title},
};

const TITLES: [Title; 11] = [
    ("µs", true),
    ("STEP", true),
    ("CPU", true),
    ("LAYER", false),
    ("UNIT", false),
    ("FUNCTION", false),
    ("HEADROOM", true),
    ("LEN", true),
    ("HEADERS", false),
    ("SKB", false),
    ("DEV", false),
];
/// What stands above the picture.
const LEGEND: &str = "BUFFER (… headroom, ▸ data, E Ethernet, I IP, T TCP, █ payload)";

/// Bytes of a header for each character of the picture.
const SCALE: usize = 4;
/// The payload's characters: it is not drawn to scale.
const PAYLOAD: &str = "██████";
/// Bytes of Ethernet's header.
const ETHERNET: u16 = 14;

/// Draws segments; columns stay as wide as they were.
pub struct Drawing {
    columns: Columns<11>,
}

impl Default for Drawing {
    fn default() -> Self {
        Self {
            columns: Columns::new(TITLES),
        }
    }
}

impl Drawing {
    /// The drawing of a segment, and an empty line.
    pub fn of(&mut self, segment: &Segment, clock: &mut Clock) -> String {
        let mut out = title(segment, clock);
        let picture = Picture::of(segment);
        let mut before = None;
        let lines: Vec<_> = segment
            .steps
            .iter()
            .map(|step| {
                let cells = cells(step, segment, before, &picture);
                self.columns.fit(&cells);
                let rest = format!(
                    "{}{}{}",
                    picture.draw(&step.skb),
                    remark(&step.skb, segment),
                    elsewhere(step, before)
                );
                before = Some(step);
                (cells, rest)
            })
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", self.columns.titles(LEGEND));
        for (cells, rest) in &lines {
            let _ = writeln!(out, "{}", self.columns.line(cells, rest));
        }
        let _ = writeln!(out, "{}\n", verdict(segment));
        out
    }
}

/// Who sends what to whom.
fn title(segment: &Segment, clock: &mut Clock) -> String {
    let mut out = String::new();
    let Some(Step { event, skb }) = segment.steps.first() else {
        return out;
    };
    clock.time_of_day(event.envelope.time_ns, &mut out);
    let here = (event.laddr(), event.envelope.sport);
    let there = (event.raddr(), event.envelope.dport);
    let ((from, from_port), (to, to_port)) = if place::sends(skb.place) {
        (here, there)
    } else {
        (there, here)
    };
    let _ = write!(
        out,
        " segment {}: {from} {from_port}{} → {to} {to_port}{}, {} bytes, seq {}",
        skb.segment,
        who(segment, true),
        who(segment, false),
        Grouped(payload(segment).into()),
        skb.seq,
    );
    let gso = segment.steps.iter().find(|step| step.skb.gso_segs > 1);
    if let Some(Step { skb, .. }) = gso {
        let _ = write!(out, " (GSO: {} segments of {} bytes)", skb.gso_segs, skb.gso_size);
    }
    out.push('\n');
    out
}

/// The process at an end, where a step names it.
fn who(segment: &Segment, sends: bool) -> String {
    let steps = segment
        .steps
        .iter()
        .filter(|step| place::sends(step.skb.place) == sends);
    match steps.filter_map(|step| step.event.task()).next() {
        Some(Task { pid, comm, .. }) => format!(" {}[{pid}]", Comm(comm)),
        None => String::new(),
    }
}

/// Bytes without headers, as the segment was first seen.
fn payload(segment: &Segment) -> u32 {
    let skbs = segment.steps.iter().filter(|step| has_skb(&step.skb));
    skbs.map(|step| step.skb.payload).next().unwrap_or(0)
}

fn cells(step: &Step, segment: &Segment, before: Option<&Step>, picture: &Picture) -> [String; 11] {
    let Step { event, skb } = step;
    let first = segment.steps.first().map_or(0, |first| first.event.envelope.time_ns);
    let since = |time: u64| micros(event.envelope.time_ns.saturating_sub(time));
    let function = via(event.envelope.via).unwrap_or_default();
    let nothing = || "-".to_owned();
    let there = has_skb(skb);
    [
        since(first),
        before.map_or_else(nothing, |before| since(before.event.envelope.time_ns)),
        event.envelope.cpu.to_string(),
        layer(skb).to_owned(),
        name(skb).to_owned(),
        function.rsplit(':').next().unwrap_or_default().to_owned(),
        if there { skb.headroom.to_string() } else { nothing() },
        if there { skb.len.to_string() } else { nothing() },
        headers(skb, picture),
        match skb.kin {
            _ if !there => nothing(),
            kin::CLONE => format!("{} clone", skb.buffer),
            kin::COPY => format!("{} copy", skb.buffer),
            _ => skb.buffer.to_string(),
        },
        if skb.ifindex == 0 {
            nothing()
        } else {
            Comm(skb.dev).to_string()
        },
    ]
}

fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}

/// What was pushed, or pulled.
fn headers(skb: &SkbStep, picture: &Picture) -> String {
    let of = |unit: u8| match unit {
        unit::SEGMENT => "TCP",
        unit::PACKET => "IP",
        _ if picture.link == ETHERNET => "Ethernet",
        _ => "link",
    };
    match moved(skb) {
        None | Some(0) => "-".to_owned(),
        Some(moved @ 1..) => {
            let names: Vec<_> = (skb.before + 1..=skb.unit).map(of).collect();
            format!("+{moved} {}", names.join(", ")).trim_end().to_owned()
        }
        Some(moved) => {
            let names: Vec<_> = (skb.unit + 1..=skb.before).rev().map(of).collect();
            format!("{moved} {}", names.join(", ")).trim_end().to_owned()
        }
    }
}

/// The headers that a segment has anywhere on its way.
struct Picture {
    link: u16,
    ip: u16,
    tcp: u16,
}

impl Picture {
    fn of(segment: &Segment) -> Self {
        let most = |header: fn(&SkbStep) -> u16| {
            let headers = segment.steps.iter().map(|step| header(&step.skb));
            headers.max().unwrap_or(0)
        };
        Self {
            link: most(|skb| skb.link_header),
            ip: most(|skb| skb.ip_header),
            tcp: most(|skb| skb.tcp_header),
        }
    }

    /// The buffer around `data`.
    fn draw(&self, skb: &SkbStep) -> String {
        if !has_skb(skb) {
            return String::new();
        }
        let mut out = "…".to_owned();
        let mut at_data = false;
        for (letter, most, there) in [
            ('E', self.link, skb.link_header),
            ('I', self.ip, skb.ip_header),
            ('T', self.tcp, skb.tcp_header),
        ] {
            let cells = usize::from(most).div_ceil(SCALE);
            let drawn = usize::from(there).div_ceil(SCALE).min(cells);
            out.extend(std::iter::repeat_n('·', cells - drawn));
            if drawn > 0 && !at_data {
                at_data = true;
                out.push('▸');
            }
            out.extend(std::iter::repeat_n(letter, drawn));
        }
        if !at_data {
            out.push('▸');
        }
        out.push_str(PAYLOAD);
        out
    }
}

/// What happens at a step beyond headers.
fn remark(skb: &SkbStep, segment: &Segment) -> String {
    let whole = payload(segment);
    match skb.place {
        place::WRITTEN if skb.flags & ZERO_COPY != 0 => format!("{} bytes, not to be copied", Grouped(skb.len.into())),
        place::WRITTEN => format!("{} bytes are copied in", Grouped(skb.len.into())),
        place::READ => format!(" {} bytes are copied out", Grouped(skb.read.into())),
        _ if skb.flags & MERGED != 0 => " joined to the one in front of it".to_owned(),
        _ if skb.payload != whole => format!(" {} bytes of it", Grouped(skb.payload.into())),
        _ => String::new(),
    }
}

/// It is in another network namespace than before: veth does that.
fn elsewhere(step: &Step, before: Option<&Step>) -> String {
    let netns = step.event.envelope.netns;
    match before {
        Some(before) if before.event.envelope.netns != netns => format!(" in netns {netns}"),
        _ => String::new(),
    }
}

/// How often it was copied, and how it ended.
fn verdict(segment: &Segment) -> String {
    let buffers = segment.steps.iter().map(|step| step.skb.buffer).max().unwrap_or(0);
    let copies = segment.steps.iter().map(|step| step.skb.copies).max().unwrap_or(0);
    let plural = |count: u32| if count == 1 { "" } else { "s" };
    let mut out = format!(
        "{copies} cop{} of the payload between the layers, {buffers} buffer{}",
        if copies == 1 { "y" } else { "ies" },
        plural(buffers),
    );
    let written = segment
        .steps
        .iter()
        .any(|step| step.skb.place == place::WRITTEN && step.skb.flags & ZERO_COPY == 0);
    out.push_str(match segment.end {
        End::Read if written && copies == 0 => "; copied in by the write and out by the read, and nowhere else",
        End::Read => "; read to its end",
        End::Merged => "; read with the sk_buff in front of it in the receive queue",
        End::Quiet | End::Cut => match segment.steps.last() {
            Some(step) if place::sends(step.skb.place) => "; it left, and was not seen to arrive on this machine",
            Some(step) if step.skb.place == place::READ => "; not read to its end",
            _ if segment.end == End::Cut => "; not read yet",
            _ => "; not read, or dropped",
        },
    });
    out
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use socklife_abi::{
        event::{Envelope, SkbStep, UNKNOWN_DEPTH},
        program::Program,
        step::{MOVE_KNOWN, ZERO_COPY, kin, place, unit},
    };

    use super::{Clock, Drawing, End, Segment, Step};
    use crate::event::{Detail, Event};

    fn step(via: Program, netns: u32, skb: SkbStep) -> Step {
        let envelope = Envelope {
            via: via as u16,
            netns,
            family: 4,
            ..Envelope::zeroed()
        };
        let detail = Detail::SkbStep(skb);
        Step {
            event: Event { envelope, detail },
            skb,
        }
    }

    #[test]
    fn what_is_pushed_pulled_cloned_and_copied_is_drawn() {
        let written = SkbStep {
            place: place::WRITTEN,
            headroom: UNKNOWN_DEPTH,
            len: 4344,
            flags: ZERO_COPY,
            ..SkbStep::zeroed()
        };
        let frame = SkbStep {
            place: place::TO_DEVICE,
            unit: unit::FRAME,
            before: unit::DATA,
            moved: 66,
            flags: MOVE_KNOWN,
            kin: kin::CLONE,
            buffer: 1,
            payload: 4344,
            len: 4410,
            headroom: 254,
            tcp_header: 32,
            ip_header: 20,
            link_header: 14,
            gso_segs: 3,
            gso_size: 1448,
            ..SkbStep::zeroed()
        };
        let packet = SkbStep {
            place: place::NETIF_RX,
            unit: unit::PACKET,
            kin: kin::COPY,
            flags: 0,
            buffer: 2,
            payload: 1448,
            copies: 1,
            link_header: 0,
            ..frame
        };
        let segment = Segment {
            steps: vec![
                step(Program::SkbWrittenFentry, 1, written),
                step(Program::SkbToDeviceTpBtf, 1, frame),
                step(Program::SkbNetifRxTpBtf, 2, packet),
            ],
            end: End::Quiet,
        };
        let drawn = Drawing::default().of(&segment, &mut Clock::new());
        let lines: Vec<_> = drawn.lines().collect();
        assert!(
            lines[0].ends_with(" 4,344 bytes, seq 0 (GSO: 3 segments of 1448 bytes)"),
            "{drawn}"
        );
        assert!(lines[2].ends_with(" 4,344 bytes, not to be copied"), "{drawn}");
        for part in [
            " net_dev_queue ",
            " +66 TCP, IP, Ethernet ",
            " 1 clone ",
            " …▸EEEEIIIIITTTTTTTT██████",
        ] {
            assert!(lines[3].contains(part), "{part}: {drawn}");
        }
        for part in [" 2 copy ", " …····▸IIIIITTTTTTTT██████ 1,448 bytes of it in netns 2"] {
            assert!(lines[4].contains(part), "{part}: {drawn}");
        }
        assert_eq!(
            lines[5],
            "1 copy of the payload between the layers, 2 buffers; not read, or dropped"
        );
    }
}
