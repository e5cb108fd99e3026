//! Arguments that several subcommands share.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use ipnet::IpNet;
use socklife_abi::{
    config::{self, Filter},
    event::Kind,
};

use crate::{
    kernel::{Class, Follow, LOOK_AT_OTHERS, Privileges, RowReport, Tracer, Wanted},
    netns,
    output::say,
    pids,
    self_check::{self, SelfCheck},
};

/// What stands above the filters in help. A heading goes on for whatever comes after it: filters come last.
pub const FILTERS: &str = "Filters (all must match)";

/// Which sockets to look at.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = FILTERS)]
pub struct SocketArgs {
    /// Either end has this port.
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<u16>,

    /// This end has this port.
    #[arg(long, value_name = "PORT", value_parser = port)]
    lport: Option<u16>,

    /// Either end is in this network: 10.0.0.0/8, 2001:db8::/32, 192.0.2.7.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    addr: Option<IpNet>,

    /// Sockets of this network namespace: a path, a PID, the namespace's inode, or its name.
    #[arg(long, value_name = "PATH|PID|INODE|NAME")]
    netns: Option<String>,

    /// IPv4 only (IPv6 sockets that speak IPv4 count as such).
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// IPv6 only.
    #[arg(short = '6', long)]
    ipv6: bool,
}

/// Which connections to look at.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = FILTERS)]
pub struct ConnectionArgs {
    /// Sockets of this process: what it binds, connects or accepts, and what then happens to that.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pid: Option<u32>,

    #[command(flatten)]
    sockets: SocketArgs,

    /// The other end has this port.
    #[arg(long, value_name = "PORT", value_parser = port)]
    rport: Option<u16>,
}

/// Which sockets and events to show.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = FILTERS)]
pub struct FilterArgs {
    #[command(flatten)]
    connections: ConnectionArgs,

    /// Only these kinds of events, separated by commas.
    ///
    /// bound, listening, connect, connected, connect_failed, established, accepted, state, closed; of a listener's queues:
    /// syn_queued, synack_sent, synack_retransmitted, cookie_sent, cookie_accepted, cookie_rejected, syn_refused,
    /// half_open_ended, accept_deferred, accept_queued, accept_refused, never_accepted, listener; of who holds a socket: handed_off, finding,
    /// last_close, fd_opened, fd_closed, forked, executed, exited, inherited, touched; of the data: skb_dropped,
    /// retransmitted, reset_sent, reset_received, rcvq_full, window_stalled, sndbuf_limited. docs/events.md has each.
    #[arg(short, long = "event", value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    events: Vec<Kind>,
}

/// How to trace, for those who must know.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Capacity")]
pub struct TraceArgs {
    /// Size of the ring buffer between kernel and socklife; a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    ring_buffer: u32,

    /// How many sockets to remember at a time.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_sockets: u32,

    /// How many sk_buffs to remember at a time, where they are counted.
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_skbs: u32,

    /// How many events of one listener's SYN path, and how many drops and how many RSTs of one CPU, to take one by one in a
    /// second; in a flood the rest is only counted. 0 takes each.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    sample: u32,

    /// Use hooks of this class only (for tests and bug reports).
    #[arg(long, value_enum, hide = true)]
    hooks: Option<Class>,

    /// Leave out begin, handshake, end or state for sockets whose local port is a multiple of N (for tests).
    #[arg(long, hide = true, value_name = "WHAT:N", value_parser = blind, default_value = "none")]
    blind: u32,
}

impl TraceArgs {
    /// With what the filter says.
    pub fn wanted(&self, filter: Filter) -> Result<Wanted> {
        ensure!(
            self.ring_buffer.is_power_of_two(),
            "--ring-buffer {}: not a power of two; try {}",
            self.ring_buffer,
            self.ring_buffer.next_power_of_two()
        );
        Ok(Wanted {
            filter,
            class: self.hooks,
            ring_bytes: self.ring_buffer * 1024,
            max_sockets: self.max_sockets,
            max_skbs: self.max_skbs,
            sample: self.sample,
            follow: Follow::default(),
            blind: self.blind,
        })
    }
}

impl ConnectionArgs {
    /// As the kernel side takes it.
    pub fn filter(&self) -> Result<Filter> {
        let mut shown = 0;
        if let Some(pid) = self.pid {
            process_exists(pid)?;
            shown = pids::translate(pid).with_context(|| format!("--pid {pid}"))?;
            if shown != pid {
                say!("socklife: --pid {pid} of this PID namespace is {shown} in the initial one");
            }
        }
        Ok(Filter {
            pid: shown,
            rport: self.rport.unwrap_or(0),
            ..self.sockets.filter()?
        })
    }
}

impl FilterArgs {
    /// As the kernel side takes it.
    pub fn filter(&self) -> Result<Filter> {
        let mut filter = self.connections.filter()?;
        if !self.events.is_empty() {
            filter.events = Kind::set(&self.events);
        }
        Ok(filter)
    }
}

impl SocketArgs {
    /// As the kernel side takes it.
    pub fn filter(&self) -> Result<Filter> {
        let mut filter = Filter {
            port: self.port.unwrap_or(0),
            lport: self.lport.unwrap_or(0),
            family: if self.ipv4 {
                4
            } else if self.ipv6 {
                6
            } else {
                0
            },
            ..Filter::ANY
        };
        if let Some(netns) = &self.netns {
            filter.netns = netns::resolve(netns)?;
        }
        if let Some(network) = self.addr {
            (filter.addr, filter.mask) = words(network);
            // An IPv4 network of /0 is all of IPv4, which is not every address.
            if network.prefix_len() == 0 {
                filter.family = match network {
                    IpNet::V4(_) => 4,
                    IpNet::V6(_) => 6,
                };
            }
        }
        Ok(filter)
    }
}

/// Checks a `--pid`.
pub fn process_exists(pid: u32) -> Result<()> {
    // SAFETY: signal 0 is sent to nobody, and asks in the PID namespace of this process.
    let asked = unsafe { libc::kill(pid.cast_signed(), 0) };
    ensure!(
        asked == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH),
        "--pid {pid}: there is no such process (`ps -e` lists them)"
    );
    Ok(())
}

/// Address and mask as the kernel side holds them: IPv4 as `::ffff:a.b.c.d`.
fn words(network: IpNet) -> ([u64; 2], [u64; 2]) {
    let (address, bits) = match network {
        IpNet::V4(v4) => (v4.network().to_ipv6_mapped(), 96 + v4.prefix_len()),
        IpNet::V6(v6) => (v6.network(), v6.prefix_len()),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (bytemuck::cast(address.octets()), bytemuck::cast(mask.to_be_bytes()))
}

/// `10.0.0.0/8`, or an address, which is a network of one.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "give an address or a network such as 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

/// An event by its name.
fn kind(text: &str) -> Result<Kind, String> {
    if let Some(kind) = Kind::ALL.iter().find(|kind| kind.name() == text) {
        return Ok(*kind);
    }
    let names = || Kind::ALL.iter().map(|kind| kind.name());
    let meant: Vec<_> = names().filter(|name| is_meant(text, name)).collect();
    let meant = match &meant[..] {
        [] => String::new(),
        meant => format!(" did you mean {}?", meant.join(" or ")),
    };
    let all: Vec<_> = names().collect();
    Err(format!("no such event;{meant} there are {}", all.join(", ")))
}

/// Whether a name was nearly given: `accept` is the call, `accepted` what came of it.
fn is_meant(text: &str, name: &str) -> bool {
    let text = text.to_lowercase().replace('-', "_");
    let ended = name.strip_prefix(text.as_str());
    ended.is_some_and(|rest| matches!(rest, "" | "d" | "ed" | "ing")) || strsim::damerau_levenshtein(&text, name) == 1
}

/// One port: the kernel compares with one.
pub fn port(text: &str) -> Result<u16, String> {
    if text.contains([',', '-']) {
        return Err(
            "one port only: run socklife once for each port, or leave it out and choose in what is printed \
             (-o json has lport and rport)"
                .to_owned(),
        );
    }
    match text.parse::<u16>() {
        Ok(port @ 1..) => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

fn blind(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    let (what, number) = text.split_once(':').ok_or("give WHAT:N")?;
    let what = config::blind::NAMES.iter().find(|(name, _)| *name == what);
    let (_, what) = what.ok_or("no such thing to be blind to")?;
    let number: u16 = number.parse().map_err(|_| "N is a number up to 65535")?;
    if number == 0 {
        return Err("N is not 0".to_owned());
    }
    Ok(what << 16 | u32::from(number))
}

/// `10s`, `2m`, `500ms`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()))
        .unwrap_or_else(|| humantime::parse_duration(text).map_err(|error| error.to_string()))
        .map_err(|error| format!("{error}; give 10s, 500ms, 2m, or a number of seconds"))
}

/// Each interval reads the kernel side's tables, or looks at each socket.
const SHORTEST: Duration = Duration::from_millis(50);
/// Nobody waits for more.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Length of an interval.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("give an interval between 50ms and one day".to_owned())
    }
}

/// The check against the kernel's own counters, with what it takes privileges for: always where the filter admits it, and
/// an error where it was asked for and cannot be.
pub fn self_check(filter: &Filter, asked: bool) -> Result<Option<SelfCheck>> {
    match self_check::possible(filter) {
        Ok(()) => {
            let check = SelfCheck::open(filter.netns);
            ensure!(
                !(asked && check.is_empty()),
                "--reconcile: the counters of this namespace cannot be read, nobody lives in it"
            );
            Ok(Some(check))
        }
        Err(error) if asked => Err(error.context("--reconcile")),
        Err(_) => Ok(None),
    }
}

/// Whether the hooks in use leave something out.
pub fn is_blind(tracer: &Tracer) -> bool {
    let rows = &tracer.report;
    rows.iter()
        .any(|row| row.chosen.is_none_or(|rung| !rung.cannot.is_empty()))
}

/// Says what cannot be seen here, and what not for want of a right.
pub fn tell_missing(tracer: &Tracer) {
    if !pids::is_initial() {
        say!("socklife: PIDs are those of the initial PID namespace, and this is another");
    }
    let few = Privileges::of_this_process().is_ok_and(|privileges| privileges.are_few());
    for line in missing(&tracer.report, few) {
        say!("socklife: {line}");
    }
    if !tracer.closed.is_empty() {
        let names: Vec<_> = tracer.closed.iter().map(ToString::to_string).collect();
        say!(
            "socklife: network namespaces that may not be entered (CAP_SYS_ADMIN): what waits there already is not known: {}",
            names.join(", ")
        );
    }
}

/// What is missing, in lines; with few privileges also what a better hook would have told.
fn missing(report: &[RowReport], few: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut denied = Vec::new();
    for row in report {
        match row.chosen {
            None if few && row.denied => denied.push(row.row.name),
            None => lines.push(format!(
                "{} cannot be seen here (`socklife doctor` tells why)",
                row.row.name
            )),
            Some(rung) if few && row.denied => denied.extend(rung.cannot),
            Some(_) => {}
        }
    }
    denied.dedup();
    if !denied.is_empty() {
        lines.push(format!(
            "not permitted, so not seen: {} (root sees it; `socklife doctor` tells what is refused)",
            denied.join("; ")
        ));
    }
    lines
}

/// Checks what must be there before anything is loaded.
pub fn check_privileges() -> Result<()> {
    Privileges::of_this_process()?.check()
}

/// Gives up what only attaching needed; what the caller runs from here on cannot harm more than it must. Who follows
/// holders goes on to look at others' descriptors.
pub fn drop_privileges(follows: bool) -> Result<()> {
    let keep: &[_] = if follows { &LOOK_AT_OTHERS } else { &[] };
    crate::kernel::drop_all_but_bpf(keep).context("cannot go on with fewer privileges")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::{FilterArgs, Kind, RowReport, duration, missing, network, port, words};
    use crate::kernel::TABLE;

    #[test]
    fn what_is_refused_for_want_of_a_right_is_told() {
        let row = TABLE.iter().find(|row| row.name == "a descriptor less").expect("a row");
        let blind = row.rungs.iter().find(|rung| rung.hooks.is_empty()).expect("a rung");
        let report = |denied| RowReport {
            row,
            chosen: Some(blind),
            refused: Vec::new(),
            denied,
        };
        let told = missing(&[report(true)], true);
        assert!(told.len() == 1 && told[0].starts_with("not permitted") && told[0].contains(blind.cannot[0]));
        // A kernel that lacks something is told by `doctor`, and root lacks no right.
        assert_eq!(missing(&[report(false)], true), [""; 0]);
        assert_eq!(missing(&[report(true)], false), [""; 0]);
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    #[test]
    fn an_event_that_is_nearly_right_is_told() {
        let parsed = |kinds: &str| Line::try_parse_from(["trace", "-e", kinds]);
        let right = parsed("accepted,connect_failed").expect("both are events").filter;
        assert_eq!(right.events, [Kind::Accepted, Kind::ConnectFailed]);
        for (wrong, meant) in [
            ("accept", " accepted?"),
            ("listen", " listening?"),
            ("close", " closed?"),
            ("connect-failed", " connect_failed?"),
            ("fd_close", " fd_closed?"),
            ("accpeted", " accepted?"),
        ] {
            let error = parsed(wrong).expect_err(wrong).to_string();
            assert!(
                error.contains(&format!("did you mean{meant} there are bound, ")),
                "{error}"
            );
        }
        assert!(
            parsed("lost")
                .expect_err("none")
                .to_string()
                .contains("no such event; there are ")
        );
    }

    #[test]
    fn a_port_is_one() {
        assert_eq!(port("443"), Ok(443));
        for wrong in ["0", "70000", "http", ""] {
            assert!(port(wrong).expect_err(wrong).contains("65535"), "{wrong}");
        }
        for several in ["80,443", "8000-8100"] {
            assert!(port(several).expect_err(several).contains("one port only"));
        }
    }

    #[test]
    fn networks_become_words_of_mapped_addresses() {
        let (addr, mask) = words(network("10.1.2.3/8").expect("a network"));
        assert_eq!(
            bytemuck::cast::<_, [u8; 16]>(addr),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0]
        );
        assert_eq!(bytemuck::cast::<_, [u8; 16]>(mask)[11..], [0xff, 0xff, 0, 0, 0]);
        let (addr, mask) = words(network("2001:db8::1").expect("an address"));
        assert_eq!(bytemuck::cast::<_, [u8; 16]>(addr)[..4], [0x20, 1, 0xd, 0xb8]);
        assert_eq!(mask, [u64::MAX; 2]);
        assert_eq!(words(network("::/0").expect("a network")).1, [0; 2]);
        assert!(network("10.0.0.0/33").is_err() && network("localhost").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").is_err() && duration("-1").is_err());
    }
}
