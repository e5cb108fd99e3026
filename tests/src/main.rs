//! The integration tests: real connections in namespaces of their own, traced by the real binary, counted exactly.
//!
//! One binary: natively it runs as root with `SOCKLIFE_BIN` in the environment; inside a VM it is the first process
//! (see [`vm`]). Each case runs once for each class of hooks, as `fentry::name`, `kprobe::name`, `tracepoint::name`; what
//! does not depend on hooks runs as `any::name`. A class that this kernel refuses is skipped by name, with the reason.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod choice;
mod harness;
mod vm;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
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
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("the integration tests load BPF programs: run them as root, with `cargo xtask test`");
        return ExitCode::FAILURE;
    }
    let (args, filters) = choice::split(args);
    let mut args = Arguments::from_iter(args);
    let choice = Choice::new(filters, &mut args);
    args.test_threads = Some(1);
    libtest_mimic::run(&args, trials(&choice, args.list)).exit_code()
}

fn trials(choice: &Choice, list: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    for class in Class::ALL {
        let cases: Vec<_> = cases::EACH_CLASS
            .iter()
            .map(|(name, case)| (format!("{}::{name}", class.name()), *case))
            .filter(|(name, _)| choice.has(name))
            .collect();
        // Asking takes a tracer's start.
        let refused = if list || cases.is_empty() {
            None
        } else {
            class.refused()
        };
        for (name, case) in cases {
            if let Some(reason) = &refused {
                harness::say(&format!("skip: {name}: {reason}"));
            }
            trials.push(trial(name, move || case(class)).with_ignored_flag(refused.is_some()));
        }
    }
    for (name, case) in cases::ONCE {
        let name = format!("any::{name}");
        if choice.has(&name) {
            trials.push(trial(name, case));
        }
    }
    trials
}

/// How often a case is tried. Where the kernel can be preempted inside a program (7.3) it skips others now and then, and
/// socklife says so: such a run proves nothing. One that is skipped each time fails.
const RUNS: u32 = 3;

fn trial(name: String, case: impl Fn() + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        for run in 1.. {
            let Err(panic) = catch_unwind(AssertUnwindSafe(&case)) else {
                break;
            };
            if !harness::kernel_skipped() || run >= RUNS {
                return Err(failure(&*panic));
            }
            harness::say(&format!("again: {name}: the kernel skipped a program"));
        }
        Ok(())
    })
}

fn failure(panic: &(dyn Any + Send)) -> Failed {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
}
