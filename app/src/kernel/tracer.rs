//! Loads the programs, walks the table of hooks, and hands out what the kernel sends.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
    programs::Program as Loaded,
};
use aya_log::EbpfLogger;
use bytemuck::Zeroable as _;
use socklife_abi::{
    config::Filter,
    counter::{Counter, Missed},
    event::{KINDS, Kind, TOTALS, Total},
    program::Program,
    queued::Record as _,
    skb::SINGLY,
    socket::Socket,
    table::{Book, DROPS_COUNTED, DropCount, DropPlace, Following},
};

use super::{
    Kernel,
    attached::Attached,
    busy, cookies,
    counts::Counts,
    hooks::{Class, Need, TABLE},
    ladder::{self, RowReport},
    loader::{self, Sizes},
    look::Look,
    losses::Losses,
    namespaces::{self, Namespace},
    probe_log::{self, Stderr},
    skbs::{SkbCounts, SkbTables},
    snapshot,
    sockets::{self, Found},
    symbols,
    tables::{Looks, Tables},
};
use crate::event::Event;

/// What to trace, and with what.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Decided in the kernel.
    pub filter: Filter,
    /// Only hooks of this class.
    pub class: Option<Class>,
    /// Size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// How many sockets to remember at a time.
    pub max_sockets: u32,
    /// How many `sk_buff`s to remember at a time, where they are wanted.
    pub max_skbs: u32,
    /// How many events of one listener's SYN path to send one by one in a second; 0: all.
    pub sample: u32,
    /// How many segments to follow, where `skb_step` is wanted.
    pub follow: Follow,
    /// For tests: what the programs leave out ([`socklife_abi::config::blind`]).
    pub blind: u32,
}

/// How many segments to follow through the layers.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    /// In all.
    pub most: u64,
    /// In a second.
    pub rate: u32,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            most: u64::MAX,
            rate: 10,
        }
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            filter: Filter::ANY,
            class: None,
            ring_bytes: 8 << 20,
            max_sockets: 65_536,
            max_skbs: 131_072,
            sample: 10_000,
            follow: Follow::default(),
            blind: 0,
        }
    }
}

/// Attached programs, and the ends of what they write. Everything is detached when this is dropped, or when the process
/// ends in whatever way.
pub struct Tracer {
    /// Attached for as long as this lives.
    attached: Attached,
    log: Option<EbpfLogger<Stderr>>,
    /// Where events come out.
    pub ring: RingBuf<MapData>,
    /// What the programs could not send.
    pub counters: Counters,
    /// What is attached, row by row.
    pub report: Vec<RowReport>,
    /// Those that were there once everything was attached.
    namespaces: Vec<Namespace>,
    /// Network namespaces that could not be entered to look at what is there already, by inode.
    pub closed: Vec<u32>,
}

const BUSY: &str = "cannot read the kernel's counters of programs";

/// The kernel's counts of what was lost.
pub struct Counters {
    counts: Counts,
    tables: Tables,
    skbs: RefCell<SkbTables>,
    /// The attached programs whose skipped runs nobody makes up for.
    programs: Vec<OwnedFd>,
    /// Those that do, by place.
    doubled: Vec<Vec<OwnedFd>>,
    /// Looks at a listener's queues when it is run.
    refresh: Option<OwnedFd>,
}

impl Counters {
    /// What was counted of each listener that is there now, as events of the kind `listener`.
    pub fn listeners(&self) -> Result<Vec<Event>> {
        self.tables.listeners(self.refresh.as_ref())
    }

    /// Accepts that nobody saw, in all namespaces.
    pub fn unseen_accepts(&self) -> Result<u64> {
        let namespaces = self.tables.namespaces()?;
        Ok(namespaces
            .values()
            .map(|totals| totals[Total::AcceptUnseen as usize])
            .sum())
    }

    /// What was counted in each network namespace, by inode.
    pub fn namespaces(&self) -> Result<HashMap<u32, [u64; TOTALS]>> {
        self.tables.namespaces()
    }

    /// What was dropped, by reason and place.
    pub fn drops(&self) -> Result<Vec<(DropPlace, DropCount)>> {
        self.tables.drops()
    }

    /// Tells the kernel side of processes that hold sockets already.
    pub fn note_processes(&mut self, pids: &HashSet<u32>) -> Result<()> {
        self.tables.note_processes(pids)
    }

    /// What was counted of `sk_buff`s. A connection that is closed and has none left is not there again.
    pub fn skbs(&self) -> Result<SkbCounts> {
        self.skbs.borrow_mut().read()
    }

    /// Half-open connections that are gone, and that no hook saw go, as events.
    pub fn sweep(&mut self) -> Result<Vec<Event>> {
        self.tables.sweep()
    }

    /// Connections that are gone, and whose end no hook saw when it came, as events; so far as hooks have found them.
    pub fn graves(&mut self) -> Result<Vec<Event>> {
        self.tables.graves()
    }

    /// Looks for such connections, and listeners, that no hook has found.
    pub fn look(&mut self) -> Result<Vec<Event>> {
        self.tables.look()
    }

    /// Once nothing is attached any more: counts what stands. What is gone since the last look ended after the end.
    pub fn settle(&mut self) -> Result<()> {
        self.tables.settle()
    }

    /// What was counted of the connections of each network namespace, by inode.
    pub fn books(&self) -> Result<HashMap<u32, Book>> {
        self.tables.books()
    }

    /// How many connections the last look found in each phase, by network namespace.
    pub fn standing(&self) -> Result<HashMap<u32, [u64; 5]>> {
        self.tables.standing()
    }

    /// Brings the totals up to date.
    pub fn read_into(&self, losses: &Losses) -> Result<()> {
        for slot in 0..KINDS {
            losses.set_unseen(slot, self.counts.sum(Counter::Unseen(slot)));
        }
        for missed in Missed::ALL.iter().filter(|missed| missed.is_unseen()) {
            self.read_missed(*missed, losses);
        }
        self.read_after_end_into(losses)
    }

    /// The same once the end has come: what goes by while one hook after the other is detached is not unseen.
    pub fn read_after_end_into(&self, losses: &Losses) -> Result<()> {
        for slot in 0..KINDS {
            losses.set_ring(slot, self.counts.sum(Counter::Lost(slot)));
            losses.set_sampled(slot, self.counts.sum(Counter::Held(slot)));
        }
        for missed in Missed::ALL.iter().filter(|missed| !missed.is_unseen()) {
            self.read_missed(*missed, losses);
        }
        let skipped = self.programs.iter().map(busy::skipped).sum::<io::Result<u64>>();
        losses.set_busy(skipped.context(BUSY)?);
        let mut at_most = 0;
        for place in &self.doubled {
            let skipped = place.iter().map(busy::skipped).collect::<io::Result<Vec<_>>>();
            at_most += skipped.context(BUSY)?.into_iter().min().unwrap_or(0);
        }
        losses.set_both_busy(at_most);
        Ok(())
    }

    fn read_missed(&self, missed: Missed, losses: &Losses) {
        let slot = missed as usize;
        losses.set_kernel(slot, self.counts.sum(Counter::Missed(slot)) + self.tables.found(slot));
    }
}

impl Tracer {
    /// Loads and attaches what the wanted events need.
    ///
    /// # Errors
    ///
    /// When the kernel lacks something that no hook can do without, or refuses every rung of a required row and
    /// `lenient` is off.
    pub fn start(kernel: &Kernel, wanted: &Wanted, lenient: bool) -> Result<Self> {
        let sizes = Sizes {
            ring_bytes: wanted.ring_bytes,
            max_sockets: wanted.max_sockets,
            follows: Kind::SkbStep.is_in(wanted.filter.events),
            max_skbs: wanted.max_skbs,
            blind: wanted.blind,
        };
        kernel.layout.reasons.publish();
        if wanted.filter.events & (Kind::set(&[Kind::SkbDropped]) | DROPS_COUNTED | SINGLY) != 0 {
            symbols::open();
        }
        let mut ebpf = loader::load(&wanted.filter, sizes, wanted.sample, kernel)?;
        // With --pid every hook that runs in a task may recognise a socket.
        let rows = TABLE
            .iter()
            .filter(|row| row.serves(wanted.filter.events) || (wanted.filter.pid != 0 && !row.is_per_packet()));
        let (report, tracepoints) = ladder::climb(&mut ebpf, kernel, wanted.class, rows)?;
        if !lenient {
            check(&report)?;
        }
        let namespaces = namespaces::find(wanted.filter.netns);
        cookies::ask(&namespaces);
        let mut closed = Vec::new();
        if report.iter().any(|row| row.takes(Program::SnapshotIter)) {
            closed = snapshot::take(&mut ebpf, &namespaces)?;
        }
        if sizes.follows {
            follow(&mut ebpf, wanted.follow)?;
        }
        let looks = looks(&mut ebpf, &report)?;
        let ring = take(&mut ebpf, "EVENTS")?;
        let counts = take(&mut ebpf, "COUNTS")?;
        give_back_memory();
        Ok(Self {
            ring: RingBuf::try_from(ring).context("cannot map the ring buffer")?,
            counters: Counters {
                counts: Counts::map(counts)?,
                tables: Tables::of(&mut ebpf, looks, wanted.filter.events)?,
                skbs: RefCell::new(SkbTables::of(&mut ebpf)?),
                programs: single(&ebpf, &report)?,
                doubled: doubled(&ebpf, &report)?,
                refresh: refresher(&mut ebpf),
            },
            log: probe_log::open(&mut ebpf),
            attached: Attached::new(ebpf, tracepoints),
            namespaces,
            report,
            closed,
        })
    }

    /// Detaches every program; what they sent can still be read.
    pub fn detach(self) -> (RingBuf<MapData>, Counters) {
        (self.ring, self.counters)
    }

    /// The sockets that are older than the trace, as far as its filter lets them through.
    ///
    /// # Errors
    ///
    /// When the kernel does not let us.
    pub fn older(&mut self, kernel: &Kernel) -> Result<Found<Socket>> {
        sockets::load(&mut self.attached.ebpf, Socket::PROGRAM, kernel)?;
        sockets::list(&mut self.attached.ebpf, &self.namespaces)
    }

    /// Says what the programs logged, if they log.
    pub fn tell_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

/// A start takes tens of megabytes, for the kernel's BTF above all, which nobody needs any more.
fn give_back_memory() {
    // SAFETY: it has no preconditions. Only glibc keeps what is freed for itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The program that looks at a listener's queues. Nothing depends on it but how new a depth is.
fn refresher(ebpf: &mut Ebpf) -> Option<OwnedFd> {
    let Loaded::RawTracePoint(program) = ebpf.program_mut(Program::RefreshRawTp.symbol())? else {
        return None;
    };
    program.load().ok()?;
    program.fd().ok()?.as_fd().try_clone_to_owned().ok()
}

/// What looks for sockets that are gone, where the kernel has iterators over a table.
fn looks(ebpf: &mut Ebpf, report: &[RowReport]) -> Result<Option<Looks>> {
    if !report.iter().any(|row| row.takes(Program::LivesIter)) {
        return Ok(None);
    }
    let mut look = |program: Program, map: &str| Look::open(ebpf, program, map);
    Ok(Some(Looks {
        lives: look(Program::LivesIter, "LIVES")?,
        listeners: look(Program::ListenersIter, "LISTENERS")?,
    }))
}

/// The programs that are attached, except those that stand in for each other.
fn single(ebpf: &Ebpf, report: &[RowReport]) -> Result<Vec<OwnedFd>> {
    let rungs = report.iter().filter_map(|row| row.chosen);
    let single = rungs.flat_map(|rung| rung.hooks.iter().filter(|hook| !rung.doubles(hook)));
    descriptors(ebpf, &single.map(|hook| hook.program).collect())
}

/// Those that stand in for each other, by place.
fn doubled(ebpf: &Ebpf, report: &[RowReport]) -> Result<Vec<Vec<OwnedFd>>> {
    let mut places = HashMap::<_, HashSet<_>>::new();
    for (row, rung) in report.iter().filter_map(|row| Some((row.row.name, row.chosen?))) {
        for hook in rung.hooks.iter().filter(|hook| rung.doubles(hook)) {
            places
                .entry((row, hook.at.to_string()))
                .or_default()
                .insert(hook.program);
        }
    }
    places.values().map(|programs| descriptors(ebpf, programs)).collect()
}

fn descriptors(ebpf: &Ebpf, programs: &HashSet<Program>) -> Result<Vec<OwnedFd>> {
    programs
        .iter()
        .filter_map(|program| ebpf.program(program.symbol()))
        .map(|program| {
            let fd = program.fd().context("a program that is attached has no descriptor")?;
            fd.as_fd()
                .try_clone_to_owned()
                .context("cannot keep a program's descriptor")
        })
        .collect()
}

/// Begins to follow segments: earlier, one would be followed from where its hooks happened to be attached.
fn follow(ebpf: &mut Ebpf, Follow { most, rate }: Follow) -> Result<()> {
    let following = Following {
        most,
        rate,
        ..Following::zeroed()
    };
    let mut table = Array::<_, [u8; size_of::<Following>()]>::try_from(take(ebpf, "FOLLOWING")?)
        .context("cannot use the map FOLLOWING")?;
    table
        .set(0, bytemuck::cast::<_, [u8; size_of::<Following>()]>(following), 0)
        .context("cannot begin to follow segments")
}

fn take(ebpf: &mut Ebpf, map: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(map)
        .with_context(|| format!("the object has no map {map}"))
}

/// An error when something that was asked for cannot be seen.
fn check(report: &[RowReport]) -> Result<()> {
    let mut text = String::new();
    for row in report {
        if row.chosen.is_none() && row.row.need == Need::Required {
            write!(text, "\n  {}:", row.row.name)?;
            for (rung, reason) in &row.refused {
                write!(text, "\n    {rung}: {reason}")?;
            }
        }
    }
    ensure!(
        text.is_empty(),
        "this kernel admits no hook for:{text}\n`socklife doctor` tells what it does admit"
    );
    Ok(())
}
