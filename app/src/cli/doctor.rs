//! `socklife doctor`: what this kernel lets us see, and whether what is attached really fires.

mod stage;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde::Serialize;
use socklife_abi::{config::Filter, event::Kind, program::Program};

use crate::{
    event::{Event, HOLDERS},
    kernel::{Class, Kernel, Need, Privileges, RowReport, Tracer, VMLINUX, Wanted, via},
    model::holders,
    netns,
    output::Format,
    scene,
};

use stage::Stage;

/// How long events may take to arrive once the connections are over.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the connections themselves may take: one waits a second for a SYN-ACK that is sent again.
const PLAY: Duration = Duration::from_secs(60);

/// Tell what this kernel lets socklife see, and prove it.
///
/// For each part of a socket's life: the hook that was chosen, what it cannot tell, and why each better one was refused.
/// Then connections in a network namespace of their own, which meet everything that a connection can meet, and a tick for
/// each event that really came. It takes some two seconds. Exit code 1 if something that socklife cannot do without is
/// not seen.
#[derive(Args, Debug)]
pub struct Doctor {
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// Use hooks of this class only (for tests and bug reports).
    #[arg(long, value_enum, hide = true)]
    hooks: Option<Class>,

    /// Only make the connections, for another that watches.
    #[arg(long, hide = true)]
    play: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    machine: String,
    btf_bytes: Option<u64>,
    lacking_capabilities: Vec<String>,
    hooks: Vec<Hook>,
    events: Vec<Seen>,
    /// Why no event was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_tried: Option<String>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Hook {
    name: &'static str,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cannot_tell: &'static [&'static str],
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    hook: String,
    reason: String,
}

#[derive(Serialize)]
struct Seen {
    event: &'static str,
    required: bool,
    fired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
}

/// What socklife can do without: what becomes of the data.
const DATA: u64 = Kind::set(&[
    Kind::SkbDropped,
    Kind::Retransmitted,
    Kind::ResetSent,
    Kind::ResetReceived,
    Kind::RcvqFull,
    Kind::SndbufLimited,
    Kind::WindowStalled,
    Kind::SkbStep,
    Kind::SkbAlloc,
    Kind::SkbFree,
]);

impl Doctor {
    pub fn run(self) -> Result<ExitCode> {
        if self.play {
            stage::play()?;
            return Ok(ExitCode::SUCCESS);
        }
        let report = self.examine();
        let text = match self.output {
            Format::Text => as_text(&report)?,
            Format::Json => format!("{}\n", serde_json::to_string(&report)?),
        };
        io::stdout()
            .write_all(text.as_bytes())
            .or_else(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            })
            .context("cannot write to standard output")?;
        Ok(if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn examine(&self) -> Report {
        let lacking = Privileges::of_this_process().map(|privileges| privileges.lacking());
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            kernel: sysctl("osrelease"),
            machine: std::env::consts::ARCH.to_owned(),
            btf_bytes: fs::metadata(VMLINUX).ok().map(|file| file.len()),
            lacking_capabilities: lacking.unwrap_or_default().iter().map(ToString::to_string).collect(),
            hooks: Vec::new(),
            events: Vec::new(),
            not_tried: None,
            ok: false,
            error: None,
        };
        let tried = Privileges::of_this_process()
            .and_then(|privileges| privileges.check())
            .and_then(|()| try_out(self.hooks));
        match tried {
            Ok(Tried {
                rows: hooks,
                fired,
                not_tried,
            }) => {
                // What is told on request only, and takes more rights, is not what socklife is for.
                let sighted = hooks.iter().all(|row| {
                    row.chosen.is_some() || row.row.need == Need::Optional || (row.denied && row.row.is_per_packet())
                });
                report.hooks = hooks.iter().map(Hook::from).collect();
                if not_tried.is_none() {
                    report.events = told_by_hooks(&hooks).map(|kind| Seen::of(kind, &fired)).collect();
                }
                report.not_tried = not_tried;
                report.ok = sighted && report.events.iter().all(|event| event.fired || !event.required);
            }
            Err(error) => report.error = Some(format!("{error:#}")),
        }
        report
    }
}

impl From<&RowReport> for Hook {
    fn from(row: &RowReport) -> Self {
        Self {
            name: row.row.name,
            required: row.row.need == Need::Required,
            chosen: row.chosen.map(|rung| {
                if rung.hooks.is_empty() {
                    if rung.cannot.is_empty() {
                        "(not needed)"
                    } else {
                        "(nothing)"
                    }
                    .to_owned()
                } else {
                    rung.to_string()
                }
            }),
            cannot_tell: row.chosen.map_or(&[], |rung| rung.cannot),
            refused: row
                .refused
                .iter()
                .map(|(rung, reason)| Refused {
                    hook: rung.to_string(),
                    reason: reason.clone(),
                })
                .collect(),
        }
    }
}

impl Seen {
    fn of(kind: Kind, fired: &BTreeMap<u8, u16>) -> Self {
        let program = fired.get(&(kind as u8));
        Self {
            event: kind.name(),
            required: !matches!(kind, Kind::Bound | Kind::CookieRejected) && !kind.is_in(HOLDERS | DATA),
            fired: program.is_some(),
            via: program.and_then(|program| via(*program)),
        }
    }
}

/// The kinds that come from a hook here; others are made of them.
fn told_by_hooks(rows: &[RowReport]) -> impl Iterator<Item = Kind> {
    let by_range = rows.iter().any(|row| row.takes(Program::CloseRangeTp));
    // What feeds everything feeds nothing by itself.
    let own = rows.iter().filter(|row| row.row.feeds != u64::MAX);
    let (seeing, blind): (Vec<_>, Vec<_>) = own.partition(|row| row.chosen.is_some_and(|rung| !rung.hooks.is_empty()));
    let feeds = |rows: &[&RowReport]| rows.iter().fold(0, |all, row| all | row.row.feeds);
    let unseen = feeds(&blind) & !feeds(&seeing);
    Kind::ALL
        .iter()
        .copied()
        .filter(move |kind| !kind.is_in(unseen | holders::MADE) && (*kind != Kind::FdsClosed || by_range))
}

/// What came of it.
struct Tried {
    rows: Vec<RowReport>,
    /// The program that sent a kind first.
    fired: BTreeMap<u8, u16>,
    not_tried: Option<String>,
}

/// Attaches everything, makes the connections, and notes which kinds came, through which program.
fn try_out(class: Option<Class>) -> Result<Tried> {
    let (ready, namespace) = channel();
    let (go, gone) = channel();
    thread::scope(|scope| {
        let player = scope.spawn(move || play(&ready, &gone));
        let observed = namespace
            .recv()
            .context("the namespace was not made")
            .and_then(|netns| observe(netns, class, go, &player));
        let played = player.join().map_err(|_| anyhow!("the connecting thread died"))?;
        played.and(observed)
    })
}

/// In a network namespace of this thread; who may not make one has a process become root of its own.
fn play(ready: &Sender<Result<u32, String>>, go: &Receiver<()>) -> Result<()> {
    let mut stage = None;
    let netns = netns::enter_new().or_else(|error| {
        let (begun, netns) = Stage::begin().map_err(|other| format!("{error:#}; nor without privileges: {other:#}"))?;
        stage = Some(begun);
        Ok(netns)
    });
    let made = netns.is_ok();
    ready.send(netns).context("nobody waits")?;
    // No word means that attaching failed, which is told elsewhere.
    if go.recv().is_err() || !made {
        return Ok(());
    }
    match stage {
        Some(stage) => stage.play(),
        None => scene::all(),
    }
}

fn observe(
    netns: Result<u32, String>,
    class: Option<Class>,
    go: Sender<()>,
    player: &ScopedJoinHandle<'_, Result<()>>,
) -> Result<Tried> {
    let (netns, not_tried) = match netns {
        Ok(netns) => (netns, None),
        // Of no namespace.
        Err(why) => (u32::MAX, Some(why)),
    };
    let wanted = Wanted {
        filter: Filter {
            netns,
            events: Filter::ANY.events | DATA,
            ..Filter::ANY
        },
        class,
        ring_bytes: 1 << 18,
        ..Wanted::default()
    };
    let mut tracer = Tracer::start(&Kernel::running()?, &wanted, true)?;
    go.send(()).context("the connecting thread is gone")?;
    let mut fired = BTreeMap::new();
    let mut end = Instant::now() + PLAY;
    let mut played = false;
    let all = told_by_hooks(&tracer.report).count();
    while not_tried.is_none() && fired.len() < all && Instant::now() < end {
        if !played && player.is_finished() {
            (played, end) = (true, Instant::now() + PATIENCE);
        }
        while let Some(record) = tracer.ring.next() {
            if let Some(event) = Event::decode(&record) {
                fired.entry(event.kind() as u8).or_insert(event.envelope.via);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Tried {
        rows: tracer.report,
        fired,
        not_tried,
    })
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/kernel/{name}"))
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn as_text(report: &Report) -> Result<String> {
    let mut out = String::new();
    writeln!(
        out,
        "socklife {} on Linux {} {}",
        report.version, report.kernel, report.machine
    )?;
    match report.btf_bytes {
        Some(bytes) => writeln!(out, "BTF           {VMLINUX}, {} KiB", bytes / 1024)?,
        None => writeln!(
            out,
            "BTF           none: {VMLINUX} is missing (CONFIG_DEBUG_INFO_BTF=y makes it)"
        )?,
    }
    if report.lacking_capabilities.is_empty() {
        writeln!(out, "capabilities  enough")?;
    } else {
        writeln!(out, "capabilities  missing: {}", report.lacking_capabilities.join(", "))?;
    }
    if let Some(error) = &report.error {
        writeln!(out, "\n✗ {error}")?;
        return Ok(out);
    }
    writeln!(out, "\nHooks, and why each better one was refused")?;
    for hook in &report.hooks {
        match &hook.chosen {
            Some(chosen) => writeln!(out, "✓ {:<33} {chosen}", hook.name)?,
            None if hook.required => writeln!(out, "✗ {:<33} nothing: socklife cannot trace here", hook.name)?,
            None => writeln!(out, "- {:<33} nothing", hook.name)?,
        }
        for cannot in hook.cannot_tell {
            writeln!(out, "    cannot tell {cannot}")?;
        }
        for refused in &hook.refused {
            writeln!(out, "    not {}\n        {}", refused.hook, refused.reason)?;
        }
    }
    match &report.not_tried {
        Some(why) => writeln!(out, "\nEvents were not tried: {why}")?,
        None => writeln!(out, "\nEvents of a few connections in a network namespace of their own")?,
    }
    for event in &report.events {
        match (&event.via, event.required) {
            (Some(via), _) => writeln!(out, "✓ {:<20} {via}", event.event)?,
            (None, true) => writeln!(out, "✗ {:<20} did not come", event.event)?,
            (None, false) => writeln!(out, "- {:<20} did not come", event.event)?,
        }
    }
    writeln!(
        out,
        "\n{}",
        if report.ok && report.not_tried.is_some() {
            "Everything that socklife cannot do without is attached; whether it fires was not tried."
        } else if report.ok {
            "Everything that socklife cannot do without is seen."
        } else {
            "Something that socklife cannot do without is not seen: see ✗ above."
        }
    )?;
    Ok(out)
}
