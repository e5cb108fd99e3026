//! Waits by powers of two, as bcc's tools show them.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::{model::Listener, output::Line};

/// The longest bar.
const BAR: usize = 40;

/// A histogram for each queue of a listener; nothing for one without connections.
pub fn text(listener: &Listener) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for (queue, waits) in [("SYN queue", &listener.half_open), ("accept queue", &listener.accept)] {
        if !waits.powers().is_empty() {
            let (address, port, netns) = (address(listener), listener.port, listener.netns);
            writeln!(out, "{address} {port} netns {netns}: time in the {queue}")?;
            lines(waits.powers(), &mut out)?;
            out.push('\n');
        }
    }
    Ok(out)
}

#[derive(Serialize)]
struct Fields {
    netns: u32,
    laddr: String,
    lport: u16,
    half_open: Vec<Step>,
    accept_wait: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    from_ns: u64,
    below_ns: u64,
    count: u64,
}

/// Appends the line of a listener, unless it had no connections.
pub fn json(listener: &Listener, line: Line<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let fields = Fields {
        netns: listener.netns,
        laddr: address(listener),
        lport: listener.port,
        half_open: steps(listener.half_open.powers()),
        accept_wait: steps(listener.accept.powers()),
    };
    if fields.half_open.is_empty() && fields.accept_wait.is_empty() {
        return Ok(());
    }
    line.write("histogram", &fields, out)
}

fn address(listener: &Listener) -> String {
    listener
        .address()
        .map_or_else(|| "?".to_owned(), |address| address.to_string())
}

fn steps(powers: &[u64]) -> Vec<Step> {
    let steps = powers.iter().enumerate().map(|(power, count)| {
        let (from, to) = bounds(power);
        Step {
            from_ns: from * 1000,
            below_ns: (to + 1) * 1000,
            count: *count,
        }
    });
    steps.filter(|step| step.count > 0).collect()
}

/// One line for each power of two microseconds from the first that is not empty, below a line of titles.
fn lines(powers: &[u64], out: &mut String) -> fmt::Result {
    let most = powers.iter().copied().max().unwrap_or(0);
    let Some(first) = powers.iter().position(|count| *count > 0) else {
        return Ok(());
    };
    writeln!(out, "{:>24} : count     distribution", "usecs")?;
    for (power, count) in powers.iter().enumerate().skip(first) {
        let (from, to) = bounds(power);
        let length = usize::try_from(u128::from(*count) * BAR as u128 / u128::from(most)).unwrap_or(BAR);
        let bar = "*".repeat(length);
        writeln!(out, "{from:>10} -> {to:<10} : {count:<8} |{bar:<BAR$}|")?;
    }
    Ok(())
}

/// The first and the last microsecond of a power; the first begins at zero.
fn bounds(power: usize) -> (u64, u64) {
    let from = 1 << power;
    (if power == 0 { 0 } else { from }, 2 * from - 1)
}

#[cfg(test)]
mod tests {
    use super::{Line, Listener, json, lines, text};

    #[test]
    fn each_queue_has_its_own() {
        let mut listener = Listener::new(7, 80);
        let line = Line { time_ns: 5, wall: "w" };
        let mut out = Vec::new();
        json(&listener, line, &mut out).expect("JSON");
        assert_eq!(
            (text(&listener).expect("text").as_str(), out.len()),
            ("", 0),
            "no connections"
        );
        listener.reached_at([127, 0, 0, 1].into());
        listener.accept.add(250_000_000);
        let shown = text(&listener).expect("text");
        assert!(
            shown.starts_with("127.0.0.1 80 netns 7: time in the accept queue\n"),
            "{shown}"
        );
        json(&listener, line, &mut out).expect("JSON");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"v\":1,\"event\":\"histogram\",\"time_ns\":5,\"wall\":\"w\",\"netns\":7,\"laddr\":\"127.0.0.1\",\
             \"lport\":80,\"half_open\":[],\
             \"accept_wait\":[{\"from_ns\":131072000,\"below_ns\":262144000,\"count\":1}]}\n"
        );
    }

    #[test]
    fn bars_are_in_proportion() {
        let mut out = String::new();
        lines(&[0, 2, 0, 80, 1], &mut out).expect("text");
        assert_eq!(
            out,
            "                   usecs : count     distribution
         2 -> 3          : 2        |*                                       |
         4 -> 7          : 0        |                                        |
         8 -> 15         : 80       |****************************************|
        16 -> 31         : 1        |                                        |
"
        );
        out.clear();
        lines(&[5], &mut out).expect("text");
        assert!(out.contains("\n         0 -> 1          : 5 "), "{out}");
        out.clear();
        lines(&[], &mut out).expect("text");
        assert_eq!(out, "");
    }
}
