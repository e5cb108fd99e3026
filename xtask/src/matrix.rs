//! The results of a whole test run: kernel by hook class.

use anyhow::Result;

use crate::{
    allowed_skips::AllowedSkips,
    trials::{Counts, Trials, Verdict},
};

/// The hook classes, which are the first part of a trial's name.
const CLASSES: &[&str] = &["fentry", "kprobe", "tracepoint", "any"];

/// The run of the integration tests on one kernel.
pub struct Run {
    /// What to call the kernel: `native (6.18.0)`, `6.12 (6.12.117+deb13)`.
    pub title: String,
    /// Its names in docs/kernels.md.
    pub kernels: Vec<String>,
    /// The trials.
    pub trials: Trials,
    /// Whether the run itself went through.
    pub outcome: Result<()>,
}

impl Run {
    /// What is wrong with this run, one sentence each.
    fn faults(&self, allowed: &AllowedSkips) -> Vec<String> {
        let mut faults = Vec::new();
        let kernels: Vec<&str> = self.kernels.iter().map(String::as_str).collect();
        for (name, verdict) in &self.trials.verdicts {
            match verdict {
                Verdict::Failed => faults.push(format!("{name} failed")),
                Verdict::Skipped(reason) if !allowed.allow(&kernels, name) => {
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

fn class_of(trial: &str) -> &str {
    let class = trial.split_once("::").map_or("", |(class, _)| class);
    CLASSES.iter().find(|known| **known == class).copied().unwrap_or("any")
}

/// All that is to be said about the runs, line by line.
pub struct Report {
    /// The matrix, the skips and the faults.
    pub lines: Vec<String>,
    /// The sum over all runs; a fault that is no trial's counts as one failed.
    pub counts: Counts,
}

/// Puts the results together.
pub fn report(runs: &[Run], allowed: &AllowedSkips) -> Report {
    let mut table = vec![vec!["kernel".to_owned()]];
    table[0].extend(CLASSES.iter().map(|class| class.to_string()));
    table.extend(runs.iter().map(Run::row));
    let mut lines = align(&table);
    let mut counts = Counts::default();

    let mut faults = Vec::new();
    for run in runs {
        let own = run.trials.counts(|_| true);
        let found = run.faults(allowed);
        counts = counts.plus(own);
        counts.failed += found.len().saturating_sub(own.failed);
        faults.extend(found.into_iter().map(|fault| format!("fault: {}: {fault}", run.title)));
        for (name, verdict) in &run.trials.verdicts {
            if let Verdict::Skipped(reason) = verdict {
                lines.push(format!("skipped: {}: {name}: {reason}", run.title));
            }
        }
    }
    lines.extend(faults);
    Report { lines, counts }
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
            outcome,
        }
    }

    fn allowed() -> AllowedSkips {
        AllowedSkips::parse(
            "<!-- allowed-skips -->\n| kernel | trials | why |\n|--|--|--|\n\
             | 6.1 | kprobe::* | why |\n<!-- /allowed-skips -->",
        )
        .expect("a table")
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
        let text = report.lines.join("\n");
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
