//! Reading what the integration tests print.
//!
//! A console mixes the kernel's lines in, and a trial that says something has its verdict on a
//! line of its own, so this looks for what it knows and passes over the rest.

use std::{collections::BTreeMap, mem};

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ran and held.
    Passed,
    /// It ran and did not hold, or began and never ended.
    Failed,
    /// It could not run here, for this reason.
    Skipped(String),
}

/// The trials of one run, by name.
#[derive(Debug, Default)]
pub struct Trials {
    /// The verdicts.
    pub verdicts: BTreeMap<String, Verdict>,
    /// What they took, as far as they said.
    pub times: BTreeMap<String, Taken>,
    /// Why those that failed did, a line each.
    pub reasons: BTreeMap<String, Vec<String>>,
    /// What the test binary said at its end inside a VM.
    pub exit: Option<i32>,
    running: Option<String>,
}

/// What a trial took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Taken {
    /// Seconds.
    pub seconds: f64,
    /// How often it started the program under test.
    pub starts: u32,
}

/// How many trials ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Trials that ran and held.
    pub passed: usize,
    /// Trials that ran and did not hold.
    pub failed: usize,
    /// Trials that could not run.
    pub skipped: usize,
}

impl Trials {
    /// Takes in one line of output.
    pub fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, rest)) = rest
                .split_once(" ... ")
                .or(rest.strip_suffix(" ...").map(|name| (name, "")))
        {
            // libtest pads names into a column.
            let name = name.trim();
            self.end_running();
            self.running = Some(name.to_owned());
            self.read_verdict(rest);
        } else if let Some(code) = line.strip_prefix("integration: exit ") {
            self.exit = code.trim().parse().ok();
        } else {
            self.read_verdict(line);
        }
    }

    /// Ends the run: what is still running has failed.
    pub fn finish(mut self) -> Self {
        self.end_running();
        self
    }

    /// The counts over trials whose name fits.
    pub fn counts(&self, mut fits: impl FnMut(&str) -> bool) -> Counts {
        let mut counts = Counts::default();
        for (_, verdict) in self.verdicts.iter().filter(|(name, _)| fits(name)) {
            match verdict {
                Verdict::Passed => counts.passed += 1,
                Verdict::Failed => counts.failed += 1,
                Verdict::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }

    fn read_verdict(&mut self, text: &str) {
        let text = text.trim();
        if let Some((name, taken)) = text.strip_prefix("time: ").and_then(read_taken) {
            self.times.insert(name, taken);
            return;
        }
        if let Some((name, line)) = text.strip_prefix("why: ").and_then(|s| s.split_once(": ")) {
            self.reasons.entry(name.to_owned()).or_default().push(line.to_owned());
            return;
        }
        if let Some((name, reason)) = text.strip_prefix("skip: ").and_then(|s| s.split_once(": ")) {
            self.set(name.trim().to_owned(), Verdict::Skipped(reason.trim().to_owned()));
            return;
        }
        let verdict = match text.split_whitespace().next() {
            Some("ok") => Verdict::Passed,
            Some("FAILED") => Verdict::Failed,
            Some("ignored") => Verdict::Skipped("ignored".to_owned()),
            _ => return,
        };
        if let Some(name) = mem::take(&mut self.running) {
            self.set(name, verdict);
        }
    }

    /// A skip stays one, whatever verdict follows; a failure too.
    fn set(&mut self, name: String, verdict: Verdict) {
        let old = self.verdicts.entry(name).or_insert_with(|| verdict.clone());
        if *old == Verdict::Passed || verdict == Verdict::Failed {
            *old = verdict;
        }
    }

    fn end_running(&mut self) {
        if let Some(name) = mem::take(&mut self.running) {
            self.verdicts.entry(name).or_insert(Verdict::Failed);
        }
    }
}

/// `fentry::a: 1.25 s, 3 starts`
fn read_taken(text: &str) -> Option<(String, Taken)> {
    let (name, rest) = text.rsplit_once(": ")?;
    let (seconds, starts) = rest.strip_suffix(" starts")?.split_once(" s, ")?;
    let taken = Taken {
        seconds: seconds.parse().ok()?,
        starts: starts.parse().ok()?,
    };
    Some((name.to_owned(), taken))
}

impl Counts {
    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Reads a line `test result: ok. 3 passed; 0 failed; 1 ignored; …` of libtest.
    pub fn of_result_line(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("test result: ")?;
        let count = |what: &str| {
            rest.split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                .unwrap_or(0)
        };
        Some(Self {
            passed: count("passed"),
            failed: count("failed"),
            skipped: count("ignored"),
        })
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Trials {
        let mut trials = Trials::default();
        text.lines().for_each(|line| trials.read(line));
        trials.finish()
    }

    #[test]
    fn verdicts_on_the_line_and_below_it() {
        let trials = read(
            "running 5 tests\n\
             test fentry::a    ... time: fentry::a: 0.50 s, 1 starts\n\
             ok\n\
             test kprobe::b ... skip: kprobe::b: no kprobes: EPERM\n\
             ok\n\
             [    3.1] clocksource: Switched\n\
             test any::c ... something said\n\
             why: any::c: a.rs:1:2: left: 1\n\
             why: any::c: ok: 2\n\
             time: any::c: 1.25 s, 3 starts\n\
             FAILED\n\
             test any::d ... ignored\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored\n\
             integration: exit 101\n",
        );
        assert_eq!(trials.verdicts["fentry::a"], Verdict::Passed);
        assert_eq!(
            trials.verdicts["kprobe::b"],
            Verdict::Skipped("no kprobes: EPERM".to_owned())
        );
        assert_eq!(trials.verdicts["any::c"], Verdict::Failed);
        assert_eq!(trials.verdicts["any::d"], Verdict::Skipped("ignored".to_owned()));
        assert_eq!(trials.reasons["any::c"], ["a.rs:1:2: left: 1", "ok: 2"]);
        assert_eq!(trials.exit, Some(101));
        let taken = Taken {
            seconds: 1.25,
            starts: 3,
        };
        assert_eq!(trials.times["any::c"], taken);
        assert_eq!(trials.times["fentry::a"].starts, 1);
        let all = trials.counts(|_| true);
        assert_eq!(
            all,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 2
            }
        );
    }

    #[test]
    fn a_trial_without_end_has_failed() {
        let trials = read("test fentry::a ... ok\ntest fentry::b ...\n[  9.9] Kernel panic");
        assert_eq!(trials.verdicts["fentry::b"], Verdict::Failed);
        assert_eq!(trials.exit, None);
    }

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            Counts::of_result_line(line),
            Some(Counts {
                passed: 12,
                failed: 1,
                skipped: 2
            })
        );
        assert_eq!(Counts::of_result_line("test a ... ok"), None);
    }
}
