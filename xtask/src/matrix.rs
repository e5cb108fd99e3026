//! The results of a whole test run: kernel by hook class.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use crate::{
    policy::Policy,
    trials::{Counts, Taken, Trials, Verdict},
};

/// The hook classes, which are the first part of a trial's name.
const CLASSES: &[&str] = &["fentry", "kprobe", "tracepoint", "any", "native"];
/// How many of the slowest trials are shown.
const SLOWEST: usize = 10;
/// How much of a failed trial's reason is shown: lines, and characters of each.
const REASON: (usize, usize) = (20, 400);

/// The run of the integration tests on one kernel.
pub struct Run {
    /// What to call the kernel: `native (6.18.0)`, `6.12 (6.12.117+deb13)`.
    pub title: String,
    /// Its names in docs/kernels.md.
    pub kernels: Vec<String>,
    /// The trials.
    pub trials: Trials,
    /// Those that were to run here.
    pub chosen: BTreeSet<String>,
    /// Those that were not.
    pub left_out: BTreeSet<String>,
    /// How long it took, and how much of that a VM kept a CPU busy.
    pub took: (Duration, Option<Duration>),
    /// Whether the run itself went through.
    pub outcome: Result<()>,
}

impl Run {
    /// What is wrong with this run, one sentence each.
    fn faults(&self, policy: &Policy) -> Vec<String> {
        let mut faults = Vec::new();
        let kernels: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
        for (name, verdict) in &self.trials.verdicts {
            match verdict {
                Verdict::Failed => faults.push(format!("{name} failed")),
                Verdict::Skipped(reason) if !policy.allows_skip(&kernels, name) => {
                    faults.push(format!(
                        "{name} was skipped ({reason}), which docs/kernels.md does not allow"
                    ));
                }
                Verdict::Passed | Verdict::Skipped(_) => {}
            }
        }
        if let Err(error) = &self.outcome {
            faults.push(format!("{error:#}"));
        }
        let missing = self
            .chosen
            .iter()
            .filter(|name| !self.trials.verdicts.contains_key(*name));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        if !missing.is_empty() {
            faults.push(format!(
                "{} trials never ran, which docs/kernels.md wants here: {}",
                missing.len(),
                missing.join(", ")
            ));
        }
        let counts = self.trials.counts(|_| true);
        if counts.passed + counts.failed == 0 && self.outcome.is_ok() {
            faults.push("no trial ran".to_owned());
        }
        faults
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![self.title.clone()];
        row.extend(CLASSES.iter().map(|class| {
            let counts = self.trials.counts(|name| class_of(name) == *class);
            if counts == Counts::default() {
                "-".to_owned()
            } else {
                counts.to_string()
            }
        }));
        row
    }
}

/// What a run did not have to prove, by class.
fn left_out(run: &Run) -> Vec<String> {
    let of = |class: &&str| {
        let names: Vec<&str> = run
            .left_out
            .iter()
            .filter(|name| class_of(name) == *class)
            .filter_map(|name| Some(name.split_once("::")?.1))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "left out by docs/kernels.md: {}: {} of {class}: {}",
                run.title,
                names.len(),
                names.join(", ")
            )
        })
    };
    CLASSES.iter().filter_map(of).collect()
}

/// Where the time went: by kernel and class, and the slowest trials.
pub fn times(runs: &[Run]) -> Vec<String> {
    let mut table = vec![vec!["time".to_owned()]];
    table[0].extend(CLASSES.iter().map(|class| class.to_string()));
    table[0].push("all".to_owned());
    let mut slowest = Vec::new();
    for run in runs {
        let mut row = vec![run.title.clone()];
        for class in CLASSES {
            let of_it = run.trials.times.iter().filter(|(name, _)| class_of(name) == *class);
            let sum = of_it.fold(Taken::default(), |sum, (_, taken)| Taken {
                seconds: sum.seconds + taken.seconds,
                starts: sum.starts + taken.starts,
            });
            row.push(format!("{:.0} s, {} starts", sum.seconds, sum.starts));
        }
        let (took, cpu) = run.took;
        let busy = cpu.map_or(String::new(), |cpu| format!(", CPU busy {:.0} s", cpu.as_secs_f64()));
        row.push(format!("{:.0} s{busy}", took.as_secs_f64()));
        table.push(row);
        slowest.extend(run.trials.times.iter().map(|(name, taken)| (taken, &run.title, name)));
    }
    let mut lines = align(&table);
    slowest.sort_by(|(a, ..), (b, ..)| b.seconds.total_cmp(&a.seconds));
    lines.extend(
        slowest.into_iter().take(SLOWEST).map(|(taken, title, name)| {
            format!("slow: {:.1} s, {} starts: {title}: {name}", taken.seconds, taken.starts)
        }),
    );
    lines
}

fn class_of(trial: &str) -> &str {
    let class = trial.split_once("::").map_or("", |(class, _)| class);
    CLASSES.iter().find(|known| **known == class).copied().unwrap_or("any")
}

/// All that is to be said about the runs, line by line.
pub struct Report {
    /// The matrix and the skips.
    pub lines: Vec<String>,
    /// The faults, and why.
    pub faults: Vec<String>,
    /// The sum over all runs; a fault that is no trial's counts as one failed.
    pub counts: Counts,
}

/// Puts the results together.
pub fn report(runs: &[Run], policy: &Policy) -> Report {
    let mut table = vec![vec!["kernel".to_owned()]];
    table[0].extend(CLASSES.iter().map(|class| class.to_string()));
    table.extend(runs.iter().map(Run::row));
    let mut lines = align(&table);
    let mut counts = Counts::default();

    let mut faults = Vec::new();
    for run in runs {
        let own = run.trials.counts(|_| true);
        let found = run.faults(policy);
        counts = counts.plus(own);
        counts.failed += found.len().saturating_sub(own.failed);
        faults.extend(found.into_iter().map(|fault| format!("fault: {}: {fault}", run.title)));
        for (name, reason) in &run.trials.reasons {
            let lines = reason.iter().take(REASON.0);
            faults.extend(lines.map(|line| format!("why: {}: {name}: {line:.*}", run.title, REASON.1)));
        }
        for (name, verdict) in &run.trials.verdicts {
            if let Verdict::Skipped(reason) = verdict {
                lines.push(format!("skipped: {}: {name}: {reason}", run.title));
            }
        }
    }
    lines.extend(runs.iter().flat_map(left_out));
    Report { lines, faults, counts }
}

fn align(table: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    table
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(column, cell)| format!("{cell:width$}", width = width(column)))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, outcome: Result<()>) -> Run {
        let mut trials = Trials::default();
        text.lines().for_each(|line| trials.read(line));
        Run {
            title: "6.1 (6.1.0-56)".to_owned(),
            kernels: vec!["6.1".to_owned()],
            trials: trials.finish(),
            chosen: BTreeSet::new(),
            left_out: BTreeSet::new(),
            took: (Duration::from_secs(2), Some(Duration::from_secs(1))),
            outcome,
        }
    }

    fn allowed() -> Policy {
        Policy::parse(
            "<!-- cells -->\n| kernel | trials | why |\n|--|--|--|\n\
             | 6.1 | `fentry::*`, `kprobe::doctor` | why |\n<!-- /cells -->\n\
             <!-- allowed-skips -->\n| kernel | trials | why |\n|--|--|--|\n\
             | 6.1 | kprobe::* | why |\n<!-- /allowed-skips -->",
        )
        .expect("tables")
    }

    #[test]
    fn a_trial_that_is_missing_is_a_fault_and_one_that_is_left_out_is_told() {
        let all = ["fentry::a", "fentry::doctor", "kprobe::a", "kprobe::doctor"].map(str::to_owned);
        let policy = allowed();
        let chosen = policy.chosen(&["6.1"], &all);
        assert_eq!(
            chosen,
            ["fentry::a", "fentry::doctor", "kprobe::doctor"]
                .map(str::to_owned)
                .into()
        );
        assert_eq!(
            policy.chosen(&["7.9"], &all).len(),
            4,
            "a kernel that the table does not know"
        );
        let mut run = run("test fentry::a ... ok\ntest kprobe::doctor ... ok\n", Ok(()));
        run.left_out = all.iter().filter(|name| !chosen.contains(*name)).cloned().collect();
        run.chosen = chosen;
        let report = report(&[run], &policy);
        let text = [report.lines, report.faults].concat().join("\n");
        assert!(
            text.contains("1 trials never ran, which docs/kernels.md wants here: fentry::doctor"),
            "{text}"
        );
        assert!(
            text.contains("left out by docs/kernels.md: 6.1 (6.1.0-56): 1 of kprobe: a"),
            "{text}"
        );
        assert_eq!((report.counts.passed, report.counts.failed), (2, 1));
    }

    #[test]
    fn times_are_by_class_with_the_slowest() {
        let run = run(
            "test fentry::a ... ok\ntime: fentry::a: 2.5 s, 3 starts\ntime: fentry::b: 1.5 s, 1 starts\n",
            Ok(()),
        );
        let lines = times(&[run]);
        assert!(
            lines[1].contains("4 s, 4 starts") && lines[1].contains("2 s, CPU busy 1 s"),
            "{lines:?}"
        );
        assert_eq!(lines[2], "slow: 2.5 s, 3 starts: 6.1 (6.1.0-56): fentry::a");
    }

    #[test]
    fn an_allowed_skip_is_listed_and_another_is_a_fault() {
        let text = "test fentry::a ... ok\nskip: kprobe::b: none\nskip: any::c: none\n";
        let report = report(&[run(text, Ok(()))], &allowed());
        assert_eq!(
            report.counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 2
            }
        );
        let text = [report.lines, report.faults].concat().join("\n");
        assert!(text.contains("skipped: 6.1 (6.1.0-56): kprobe::b: none"), "{text}");
        assert!(!text.contains("fault: 6.1 (6.1.0-56): kprobe::b"), "{text}");
        assert!(text.contains("fault: 6.1 (6.1.0-56): any::c was skipped"), "{text}");
    }

    #[test]
    fn a_kernel_without_trials_is_a_fault() {
        let report = report(&[run("", Ok(()))], &allowed());
        assert_eq!(report.counts.failed, 1);
    }

    #[test]
    fn a_machine_that_died_is_a_fault_beside_the_trials() {
        let dead = Err(anyhow::anyhow!("Kernel panic"));
        let report = report(&[run("test fentry::a ... FAILED\n", dead)], &allowed());
        assert_eq!(
            report.counts,
            Counts {
                passed: 0,
                failed: 2,
                skipped: 0
            }
        );
    }
}
