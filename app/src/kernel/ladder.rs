//! Walks the table of hooks: each row's best rung that loads, several rows at a time (the verifier takes most of a start),
//! is then attached in the table's order. A rung that does not attach gives way to the next one.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet, hash_map::Entry},
    fs, io,
    os::fd::OwnedFd,
    slice,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf,
    programs::{Program as Loaded, ProgramError, links::CgroupAttachMode},
};
use socklife_abi::program::Program;

use super::{
    Kernel, cgroup,
    hooks::{At, Class, Hook, Row, Rung},
    loader, symbols, tracefs,
    tracepoints::Kept,
};

/// Where a kernel that admits kprobes by perf_event_open(2) says so.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// `ENOTSUPP`, which is the kernel's own and has no name in libc.
const NOT_SUPPORTED: i32 = 524;

/// More threads than that would wait for each other's memory.
const THREADS: usize = 8;

/// What became of a row of the table.
#[derive(Clone, Debug)]
pub struct RowReport {
    /// The row.
    pub row: &'static Row,
    /// The rung that was taken.
    pub chosen: Option<&'static Rung>,
    /// The better rungs, and why they were refused.
    pub refused: Vec<(&'static Rung, String)>,
    /// One of them was refused for want of a right.
    pub denied: bool,
}

impl RowReport {
    /// Whether the rung that was taken has this program.
    pub fn takes(&self, program: Program) -> bool {
        self.chosen
            .is_some_and(|rung| rung.hooks.iter().any(|hook| hook.program == program))
    }
}

/// Loads and attaches what these rows need.
///
/// # Errors
///
/// When the object lacks a program. What the kernel refuses is in the reports.
pub fn climb(
    ebpf: &mut Ebpf,
    kernel: &Kernel,
    class: Option<Class>,
    rows: impl Iterator<Item = &'static Row>,
) -> Result<(Vec<RowReport>, Option<Kept>)> {
    let mut programs: HashMap<_, _> = ebpf.programs_mut().collect();
    let mut climbs = rows
        .map(|row| Climb::begin(row, &mut programs))
        .collect::<Result<Vec<_>>>()?;
    let ladder = Ladder {
        kernel,
        class,
        kprobes: OnceLock::new(),
        no_trampolines: OnceLock::new(),
    };
    ladder.load_all(&mut climbs);
    let places = Places::default();
    for climb in &mut climbs {
        while let Some(rung) = climb.loaded.take() {
            match climb.attach(rung, &places) {
                Ok(()) => climb.report.chosen = Some(rung),
                Err(error) => {
                    climb.refuse(rung, &error);
                    ladder.load(climb);
                }
            }
        }
    }
    let reports: Vec<_> = climbs.into_iter().map(|climb| climb.report).collect();
    let tracepoints = keep_open(&reports);
    Ok((reports, tracepoints))
}

/// Without it the end takes longer, and is otherwise the same.
fn keep_open(reports: &[RowReport]) -> Option<Kept> {
    let hooks = reports.iter().filter_map(|row| row.chosen).flat_map(|rung| rung.hooks);
    let mut places: Vec<_> = hooks
        .filter_map(|hook| match hook.at {
            At::Tracepoint(category, name) | At::TracepointNamed(category, name, _) => Some((category, name)),
            _ => None,
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return None;
    }
    let mut kept = Kept::new().ok()?;
    for (category, name) in places {
        kept.keep(category, name).ok()?;
    }
    Some(kept)
}

/// A row, and how far it came.
struct Climb<'a> {
    report: RowReport,
    /// Those that are not tried yet.
    rungs: slice::Iter<'static, Rung>,
    /// Of all its rungs. No other row has them.
    programs: HashMap<Program, &'a mut Loaded>,
    /// Loaded and not attached.
    loaded: Option<&'static Rung>,
}

impl<'a> Climb<'a> {
    fn begin(row: &'static Row, programs: &mut HashMap<&str, &'a mut Loaded>) -> Result<Self> {
        let mut own = HashMap::new();
        for hook in row.rungs.iter().flat_map(|rung| rung.hooks) {
            let symbol = hook.program.symbol();
            if let Entry::Vacant(place) = own.entry(hook.program) {
                let program = programs
                    .remove(symbol)
                    .with_context(|| format!("the object has no program {symbol}, or two rows have it"))?;
                place.insert(program);
            }
        }
        Ok(Self {
            report: RowReport {
                row,
                chosen: None,
                refused: Vec::new(),
                denied: false,
            },
            rungs: row.rungs.iter(),
            programs: own,
            loaded: None,
        })
    }

    fn refuse(&mut self, rung: &'static Rung, error: &anyhow::Error) {
        self.report.denied |= is_denied(error);
        self.report.refused.push((rung, format!("{error:#}")));
        for hook in rung.hooks {
            if let Some(program) = self.programs.get_mut(&hook.program) {
                unload(program);
            }
        }
    }

    /// Attaches all of a rung that is loaded.
    fn attach(&mut self, rung: &Rung, places: &Places) -> Result<()> {
        for hook in rung.hooks {
            let program = self.programs.get_mut(&hook.program).context("no such program")?;
            attach(program, hook, places).with_context(|| hook.at.to_string())?;
        }
        Ok(())
    }
}

struct Ladder<'a> {
    kernel: &'a Kernel,
    class: Option<Class>,
    /// Why there are no kprobes, if there are none.
    kprobes: OnceLock<Result<(), String>>,
    /// Why the kernel takes no program for a trampoline, once it said so of one.
    no_trampolines: OnceLock<String>,
}

impl Ladder<'_> {
    /// Each row, by as many threads as there are CPUs.
    fn load_all(&self, climbs: &mut [Climb<'_>]) {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let rest = Mutex::new(climbs.iter_mut());
        let work = || {
            loop {
                let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(climb) = next else { break };
                self.load(climb);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }

    /// The next rung that loads.
    fn load(&self, climb: &mut Climb<'_>) {
        while let Some(rung) = climb.rungs.next() {
            if self.class.is_some_and(|class| !rung.classes.contains(&class)) {
                continue;
            }
            match self.load_rung(rung, &mut climb.programs) {
                Ok(()) => {
                    climb.loaded = Some(rung);
                    return;
                }
                Err(error) => climb.refuse(rung, &error),
            }
        }
    }

    fn load_rung(&self, rung: &Rung, programs: &mut HashMap<Program, &mut Loaded>) -> Result<()> {
        // Before the verifier is asked, which takes longer.
        for hook in rung.hooks {
            self.is_possible(hook.at)
                .and_then(|()| is_known(hook.program))
                .with_context(|| hook.at.to_string())?;
        }
        let mut loaded = HashSet::new();
        for hook in rung.hooks {
            let program = programs.get_mut(&hook.program).context("no such program")?;
            if loaded.insert(hook.program) {
                self.load_one(program, hook).with_context(|| hook.at.to_string())?;
            }
        }
        Ok(())
    }

    fn is_possible(&self, at: At) -> Result<()> {
        if let Some(function) = at.function() {
            let missing = self.kernel.layout.missing_args(function);
            ensure!(
                missing.is_empty(),
                "this kernel's {function} has no {}",
                missing.join(", ")
            );
        }
        if matches!(at, At::Kprobe(_) | At::Kretprobe(_)) {
            let kprobes = self.kprobes.get_or_init(|| match fs::read(KPROBES) {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("`{KPROBES}`: {error}")),
            });
            kprobes.clone().map_err(|reason| anyhow!(reason))?;
        }
        match self.no_trampolines.get() {
            Some(reason) if matches!(at, At::Fentry(_) | At::Fexit(_)) => Err(anyhow!("{reason}")),
            _ => Ok(()),
        }
    }

    fn load_one(&self, program: &mut Loaded, hook: &Hook) -> Result<()> {
        let targets = &self.kernel.targets;
        let loaded = match (hook.at, program) {
            (At::Fentry(function), Loaded::FEntry(program)) => self.remember(program.load(function, targets)),
            (At::Fexit(function), Loaded::FExit(program)) => self.remember(program.load(function, targets)),
            (At::TpBtf(name) | At::TpBtfNamed(name, _), Loaded::BtfTracePoint(program)) => program.load(name, targets),
            (At::RawTp(_) | At::RawTpNamed(..), Loaded::RawTracePoint(program)) => program.load(),
            (At::Kprobe(_) | At::Kretprobe(_), Loaded::KProbe(program)) => program.load(),
            (At::Tracepoint(..) | At::TracepointNamed(..), Loaded::TracePoint(program)) => program.load(),
            (At::SockOps, Loaded::SockOps(program)) => program.load(),
            (At::SockCreate | At::PostBind4 | At::PostBind6 | At::SockRelease, Loaded::CgroupSock(program)) => {
                program.load()
            }
            (At::Iter(target), Loaded::Iter(program)) => program.load(target, targets),
            (at, _) => bail!("{} is no program for {at}", hook.program.symbol()),
        };
        loaded.map_err(loader::reason)
    }

    /// A policy, or a processor for which the kernel has no trampolines, refuses all of them: once is enough.
    fn remember(&self, loaded: Result<(), ProgramError>) -> Result<(), ProgramError> {
        if let Err(ProgramError::LoadError { io_error, .. }) = &loaded
            && matches!(
                io_error.raw_os_error(),
                Some(libc::EPERM | libc::EOPNOTSUPP | NOT_SUPPORTED)
            )
        {
            let _ = self.no_trampolines.set(format!("load: {io_error}"));
        }
        loaded
    }
}

/// Those that tell what they see by who called must know where that function is.
fn is_known(program: Program) -> Result<()> {
    use Program::{
        SkbPairNodeRawTp, SkbPairNodeRawTpSecond, SkbPairNodeRawTpThird, SkbPairRawTp, SkbPairRawTpSecond,
        SkbPairRawTpThird,
    };
    let asks = matches!(
        program,
        SkbPairNodeRawTp
            | SkbPairNodeRawTpSecond
            | SkbPairNodeRawTpThird
            | SkbPairRawTp
            | SkbPairRawTpSecond
            | SkbPairRawTpThird
    );
    if !asks || symbols::range(loader::ALLOC_SKB).is_some() {
        return Ok(());
    }
    Err(
        anyhow!(io::Error::from(io::ErrorKind::PermissionDenied)).context(format!(
            "/proc/kallsyms does not say where {} is, which takes root and sysctl kernel.kptr_restrict=1 or 0",
            loader::ALLOC_SKB
        )),
    )
}

/// What programs attach to that must be opened first.
#[derive(Default)]
struct Places {
    cgroup: OnceCell<OwnedFd>,
    tracefs: OnceCell<()>,
}

impl Places {
    fn cgroup(&self) -> Result<&OwnedFd> {
        if let Some(cgroup) = self.cgroup.get() {
            return Ok(cgroup);
        }
        let cgroup = cgroup::root().map_err(|error| {
            anyhow!("cannot open the root of cgroup2: {error}; mount it (mount -t cgroup2 none /sys/fs/cgroup)")
        })?;
        Ok(self.cgroup.get_or_init(|| cgroup))
    }

    fn tracefs(&self) -> Result<()> {
        if self.tracefs.get().is_none() {
            tracefs::ensure().map_err(|error| {
                let what = match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => "cannot use tracefs (it takes root)",
                    _ => "cannot mount tracefs; mount it (mount -t tracefs none /sys/kernel/tracing)",
                };
                anyhow!(error).context(what)
            })?;
            self.tracefs.get_or_init(|| ());
        }
        Ok(())
    }
}

/// What the verifier refuses is no matter of rights, and has its text only ([`loader::reason`]).
fn is_denied(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

fn attach(program: &mut Loaded, hook: &Hook, places: &Places) -> Result<()> {
    let attached = match (hook.at, program) {
        (At::Fentry(_), Loaded::FEntry(program)) => program.attach().map(drop),
        (At::Fexit(_), Loaded::FExit(program)) => program.attach().map(drop),
        (At::TpBtf(_) | At::TpBtfNamed(..), Loaded::BtfTracePoint(program)) => program.attach().map(drop),
        (At::RawTp(name) | At::RawTpNamed(name, _), Loaded::RawTracePoint(program)) => program.attach(name).map(drop),
        (At::Kprobe(function) | At::Kretprobe(function), Loaded::KProbe(program)) => {
            program.attach(function, 0).map(drop)
        }
        (At::Tracepoint(category, name) | At::TracepointNamed(category, name, _), Loaded::TracePoint(program)) => {
            places.tracefs()?;
            program.attach(category, name).map(drop)
        }
        // `Single` is no flag, and a link at a cgroup stands beside others in any case; `AllowMultiple` is refused
        // by bpf_link_create (aya #1078).
        (At::SockOps, Loaded::SockOps(program)) => program.attach(places.cgroup()?, CgroupAttachMode::Single).map(drop),
        (At::SockCreate | At::PostBind4 | At::PostBind6 | At::SockRelease, Loaded::CgroupSock(program)) => {
            program.attach(places.cgroup()?, CgroupAttachMode::Single).map(drop)
        }
        // Nothing but a walk makes it run.
        (At::Iter(_), Loaded::Iter(_)) => Ok(()),
        (at, _) => bail!("{} is no program for {at}", hook.program.symbol()),
    };
    attached.map_err(loader::reason)
}

/// Detaches a program and takes it out of the kernel.
pub fn unload(program: &mut Loaded) {
    // One that never loaded has nothing to unload.
    let _ = match program {
        Loaded::FEntry(program) => program.unload(),
        Loaded::FExit(program) => program.unload(),
        Loaded::BtfTracePoint(program) => program.unload(),
        Loaded::RawTracePoint(program) => program.unload(),
        Loaded::KProbe(program) => program.unload(),
        Loaded::TracePoint(program) => program.unload(),
        Loaded::SockOps(program) => program.unload(),
        Loaded::CgroupSock(program) => program.unload(),
        Loaded::Iter(program) => program.unload(),
        _ => Ok(()),
    };
}
