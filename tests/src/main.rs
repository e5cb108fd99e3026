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
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    choice::Choice,
    harness::{Class, helper, models},
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
    let (args, filters) = choice::split(args);
    let mut args = Arguments::from_iter(args);
    // SAFETY: no arguments.
    if !args.list && unsafe { libc::geteuid() } != 0 {
        eprintln!("the integration tests load BPF programs: run them as root, with `cargo xtask test`");
        return ExitCode::FAILURE;
    }
    let choice = Choice::new(filters, &mut args);
    args.test_threads = Some(1);
    libtest_mimic::run(&args, trials(&choice, args.list)).exit_code()
}

fn trials(choice: &Choice, list: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    for class in Class::ALL {
        let chosen = |cases: &[(&'static str, cases::Case)]| -> Vec<_> {
            let named = cases
                .iter()
                .map(|(name, case)| (format!("{}::{name}", class.name()), *case));
            named.filter(|(name, _)| choice.has(name)).collect()
        };
        let (sharing, others) = (chosen(cases::SHARING), chosen(cases::EACH_CLASS));
        // Asking takes a tracer's start.
        let refused = if list || sharing.len() + others.len() == 0 {
            None
        } else {
            class.refused()
        };
        let mut add = |name: String, may_share: bool, case: cases::Case| {
            if let Some(reason) = &refused {
                harness::say(&format!("skip: {name}: {reason}"));
            }
            let of_it = name.clone();
            let case = move || {
                if may_share {
                    harness::shared::allow(class, &of_it);
                } else {
                    harness::shared::forbid();
                }
                case(class);
            };
            trials.push(trial(name, case).with_ignored_flag(refused.is_some()));
        };
        let shared = !sharing.is_empty();
        for (name, case) in sharing {
            add(name, true, case);
        }
        if shared {
            // It ended well; what it lost it lost in one of those.
            add(format!("{}::shared_tracer", class.name()), true, |_| {
                harness::shared::finish()
            });
        }
        for (name, case) in others {
            add(name, false, case);
        }
    }
    for (prefix, once) in [("any", cases::ONCE), ("native", cases::NATIVE)] {
        for (name, case) in once {
            let name = format!("{prefix}::{name}");
            if choice.has(&name) {
                let case = move || {
                    harness::shared::forbid();
                    case();
                };
                trials.push(trial(name, case));
            }
        }
    }
    trials
}

/// How often a case is tried. Where the kernel can be preempted inside a program (7.3) it skips others now and then, and
/// socklife says so: such a run proves nothing. One that is skipped each time fails.
const RUNS: u32 = 3;

fn trial(name: String, case: impl Fn() + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        let begin = Instant::now();
        let outcome = (1..).find_map(|run| match catch_unwind(AssertUnwindSafe(&case)) {
            Ok(()) => Some(Ok(())),
            Err(panic) if !harness::kernel_skipped() || run >= RUNS => Some(Err(failure(&*panic))),
            Err(_) => {
                harness::say(&format!("again: {name}: the kernel skipped a program"));
                None
            }
        });
        // Read by `cargo xtask`.
        harness::say(&format!(
            "time: {name}: {:.2} s, {} starts",
            begin.elapsed().as_secs_f64(),
            harness::starts()
        ));
        outcome.unwrap_or(Ok(()))
    })
}

fn failure(panic: &(dyn Any + Send)) -> Failed {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
}
