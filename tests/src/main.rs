//! The integration tests: real connections in namespaces of their own, traced by the real binary, counted exactly.
//!
//! One binary: natively it runs as root with `SOCKLIFE_BIN` in the environment; inside a VM it is the first process
//! (see [`vm`]). Each case runs once for each class of hooks, as `fentry::name`, `kprobe::name`, `tracepoint::name`; what
//! does not depend on hooks runs as `any::name`, what does not depend on the kernel either as `native::name`. A class that
//! this kernel refuses is skipped by name, with the reason.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod choice;
mod harness;
mod rung_table;
mod vm;

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    choice::Choice,
    harness::{Class, helper, models, shared},
};

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == helper::FLAG) {
        return if args[2].starts_with(models::PREFIX) {
            models::run(&args[2..])
        } else {
            helper::run(&args[2..])
        };
    }
    if std::process::id() == 1 {
        return vm::run();
    }
    args.retain(|arg| arg != "--nocapture");
    run(args)
}

/// Runs the trials that the arguments choose; all of them one at a time, for they count what happens on the machine.
fn run(args: Vec<String>) -> ExitCode {
    let (times, args) = choice::times(args);
    let (args, filters) = choice::split(args);
    let mut args = Arguments::from_iter(args);
    // SAFETY: no arguments.
    if !args.list && unsafe { libc::geteuid() } != 0 {
        eprintln!("the integration tests load BPF programs: run them as root, with `cargo xtask test`");
        return ExitCode::FAILURE;
    }
    let choice = Choice::new(filters, &mut args);
    args.test_threads = Some(1);
    remember_places();
    libtest_mimic::run(&args, trials(&choice, args.list, times)).exit_code()
}

fn trials(choice: &Choice, list: bool, times: u32) -> Vec<Trial> {
    let mut trials = Vec::new();
    for class in Class::ALL {
        let chosen = |cases: &[(&'static str, cases::Case)]| -> Vec<_> {
            let named = cases
                .iter()
                .map(|(name, case)| (format!("{}::{name}", class.name()), *case));
            named.filter(|(name, _)| choice.has(name)).collect()
        };
        let groups = [
            ("shared_tracer", Some(shared::SOCKETS), chosen(cases::SHARING)),
            (
                "shared_tracer_of_holders",
                Some(shared::HOLDERS),
                chosen(cases::HOLDING),
            ),
            ("", None, chosen(cases::EACH_CLASS)),
        ];
        // Asking takes a tracer's start.
        let refused = if list || groups.iter().all(|(_, _, cases)| cases.is_empty()) {
            None
        } else {
            class.refused()
        };
        let mut add = |name: String, case: Box<dyn Fn() + Send>| {
            if let Some(reason) = &refused {
                harness::say(&format!("skip: {name}: {reason}"));
            }
            trials.push(trial(name, times, case).with_ignored_flag(refused.is_some()));
        };
        for (end, kinds, cases) in groups {
            let count = cases.len();
            for (name, case) in cases {
                let of_it = name.clone();
                let case = move || {
                    match kinds {
                        Some(kinds) => shared::allow(class, kinds, count, &of_it),
                        None => shared::forbid(),
                    }
                    case(class);
                };
                add(name, Box::new(case));
            }
            if kinds.is_some() && count > 0 {
                // It ended well; what it lost it lost in one of those.
                add(format!("{}::{end}", class.name()), Box::new(shared::finish));
            }
        }
    }
    for (prefix, once) in [("any", cases::ONCE), ("native", cases::NATIVE)] {
        for (name, case) in once {
            let name = format!("{prefix}::{name}");
            if choice.has(&name) {
                let case = move || {
                    shared::forbid();
                    case();
                };
                trials.push(trial(name, times, case));
            }
        }
    }
    trials
}

/// How often a case is tried. Where the kernel can be preempted inside a program (7.3) it skips others now and then, and
/// socklife says so: such a run proves nothing. One that is skipped each time fails.
const RUNS: u32 = 3;

fn trial(name: String, times: u32, case: impl Fn() + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        let begin = Instant::now();
        let outcome = (0..times).try_for_each(|_| once(&name, &case));
        // Both are read by `cargo xtask`.
        if let Err(text) = &outcome {
            text.lines()
                .for_each(|line| harness::say(&format!("why: {name}: {line}")));
        }
        harness::say(&format!(
            "time: {name}: {:.2} s, {} starts",
            begin.elapsed().as_secs_f64(),
            harness::starts()
        ));
        outcome.map_err(Failed::from)
    })
}

/// What it panicked with, if it did.
fn once(name: &str, case: &impl Fn()) -> Result<(), String> {
    for run in 1.. {
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(()) => break,
            Err(panic) if !harness::kernel_skipped() || run >= RUNS => return Err(failure(&*panic)),
            Err(_) => harness::say(&format!("again: {name}: the kernel skipped a program")),
        }
    }
    Ok(())
}

/// Where the last panic was.
static PLACE: Mutex<String> = Mutex::new(String::new());

fn remember_places() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let (Some(place), Ok(mut last)) = (info.location(), PLACE.lock()) {
            *last = place.to_string();
        }
        print(info);
    }));
}

fn failure(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let place = PLACE.lock().map(|place| place.clone()).unwrap_or_default();
    format!("{place}: {}", text.unwrap_or_else(|| "panicked".to_owned()))
}
