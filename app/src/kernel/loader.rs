//! Loads the object: its globals say what this kernel is like and what is wanted, and its maps have the sizes that it takes.

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{Ebpf, programs::ProgramError};
use socklife_abi::{
    config::{Config, Filter},
    event::Kind,
    skb::{Code, SINGLY},
    table::DROPS_COUNTED,
};

use super::{Kernel, attach_ids, counts, layout::Layout, object, reasons, symbols};
use crate::clock;

/// Sizes of the maps that are large.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of the ring buffer, in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// How many sockets to remember at a time.
    pub max_sockets: u32,
    /// Whether segments are followed: else nobody needs the tables for it.
    pub follows: bool,
    /// How many `sk_buff`s to remember at a time, where somebody counts them.
    pub max_skbs: u32,
    /// What a test takes from the programs ([`Config::blind`]).
    pub blind: u32,
}

/// The tables of segments that are followed. Their size is the kernel side's.
const OF_SEGMENTS: [&str; 6] = ["FOLLOWED", "BUFFERS", "SEGMENTS", "LEFT_OUT", "WRITTEN", "QUEUEING"];

/// Places in the kernel's code that allocate `sk_buff`s: a few hundred.
const CALLERS: u32 = 1024;

impl Sizes {
    /// For programs that send no event and remember nothing.
    pub const LEAST: Self = Self {
        ring_bytes: 4096,
        max_sockets: 1,
        follows: false,
        max_skbs: 1,
        blind: 0,
    };
}

/// Creates the maps; no program is loaded yet.
pub fn load(filter: &Filter, sizes: Sizes, sample: u32, kernel: &Kernel) -> Result<Ebpf> {
    let layout = &kernel.layout;
    let Sizes {
        ring_bytes,
        max_sockets,
        follows,
        max_skbs,
        blind,
    } = sizes;
    let counts_skbs = filter.events & SINGLY != 0;
    let code = if counts_skbs { code(layout) } else { Code::UNKNOWN };
    let if_counted = |entries| if counts_skbs { entries } else { 1 };
    ensure!(
        ring_bytes.is_power_of_two() && ring_bytes >= 4096,
        "the ring buffer's size must be a power of two of at least 4096 bytes"
    );
    let config = Config {
        wakeup_bytes: u64::from(ring_bytes / 4),
        cookie_helper: u32::from(layout.cookie_helper),
        nr_accept: u32::try_from(libc::SYS_accept)?,
        nr_accept4: u32::try_from(libc::SYS_accept4)?,
        sample,
        hz: clock::ticks_per_second(),
        reason_tcp_flags: layout.reasons.drop_named("TCP_FLAGS").unwrap_or(0),
        reason_unsaid: layout.reasons.drop_named("NOT_SPECIFIED").unwrap_or(u32::MAX),
        reason_listen_overflow: layout.reasons.drop_named("TCP_LISTEN_OVERFLOW").unwrap_or(u32::MAX),
        blind,
        reserved: 0,
        used_up: layout.reasons.set(&reasons::USED_UP),
        stale_ack: layout.reasons.set(&reasons::STALE_ACK),
        no_room: layout.reasons.set(&reasons::NO_ROOM),
        purge: purge(filter, layout),
        older: u64::from(max_sockets / 2),
    };
    let object = object::bytes()?;
    let mut loader = attach_ids::loader()?;
    if !follows {
        for table in OF_SEGMENTS {
            loader.map_max_entries(table, 1);
        }
    }
    loader
        // The object relocates nothing; if it did, this would say so.
        .btf(Some(&kernel.targets))
        .override_global("OFFSETS", &layout.offsets[..], true)
        .override_global("ARGS", &layout.args[..], true)
        .override_global("REGS", &layout.regs[..], true)
        .override_global("FILTER", bytemuck::bytes_of(filter), true)
        .override_global("CONFIG", bytemuck::bytes_of(&config), true)
        .override_global("CODE", bytemuck::bytes_of(&code), true)
        .map_max_entries("EVENTS", ring_bytes)
        .map_max_entries("COUNTS", counts::entries()?)
        .map_max_entries("LIVES", max_sockets)
        .map_max_entries("REQUESTS", max_sockets)
        .map_max_entries("SKBS", if_counted(max_skbs))
        .map_max_entries("SKB_CALLERS", if_counted(CALLERS))
        .map_max_entries("SKB_CONNECTIONS", if_counted(max_sockets))
        .load(&object)
        .map_err(|error| anyhow!(error))
        .context("cannot create the maps (is this a 5.10 kernel or later, and is bpf(2) allowed here?)")
}

/// See [`Config::purge`].
fn purge(filter: &Filter, layout: &Layout) -> [u64; 2] {
    let told = layout.reasons.drop_named("QUEUE_PURGE").is_some();
    if told || filter.events & (Kind::set(&[Kind::SkbDropped]) | DROPS_COUNTED) == 0 {
        return [0; 2];
    }
    symbols::range("skb_queue_purge").unwrap_or_default()
}

/// Where `sk_buff`s come from.
pub const ALLOC_SKB: &str = "__alloc_skb";

/// What must be known of the kernel's code.
fn code(layout: &Layout) -> Code {
    let [alloc_from, alloc_to] = symbols::range(ALLOC_SKB).unwrap_or_default();
    Code {
        alloc_from,
        alloc_to,
        func_ip: u64::from(layout.func_ip_helper),
    }
}

/// How the verifier's log ends after its verdict.
const STATISTICS: [&str; 4] = ["processed", "verification time", "stack depth", "max_states"];

/// The kernel's own words: the innermost error, and the end of the verifier's log if there is one.
pub fn reason(error: ProgramError) -> anyhow::Error {
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log
                .lines()
                .rev()
                .map(str::trim)
                .find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
            match last {
                Some(line) => anyhow!("load: {io_error}: {line}"),
                None => anyhow!("load: {io_error}"),
            }
        }
        _ => anyhow!(error),
    }
}
