//! Which trials run: libtest's filters, and as many of them as one likes.

use std::{collections::HashSet, fs, mem};

use libtest_mimic::Arguments;

/// Options of libtest whose value is a word of its own.
const WITH_VALUE: [&str; 6] = ["-Z", "--test-threads", "--logfile", "--skip", "--color", "--format"];

/// Parts the filters from the other arguments (the first of which is the program).
pub fn split(args: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut options, mut filters) = (Vec::new(), Vec::new());
    let mut is_value = true;
    for arg in args {
        let to = if is_value || arg.starts_with('-') {
            &mut options
        } else {
            &mut filters
        };
        is_value = !is_value && WITH_VALUE.contains(&arg.as_str());
        to.push(arg);
    }
    (options, filters)
}

/// How often each trial runs, to find what fails now and then.
const TIMES: &str = "--times";

/// Takes `--times N` out of the arguments: 1 if it is not there.
pub fn times(mut args: Vec<String>) -> (u32, Vec<String>) {
    let Some(at) = args.iter().position(|arg| arg == TIMES) else {
        return (1, args);
    };
    let taken: Vec<_> = args.drain(at..(at + 2).min(args.len())).collect();
    let times = taken.get(1).and_then(|times| times.parse().ok());
    (times.expect("--times wants a number"), args)
}

/// Names a file with the names of trials, of which alone we choose.
const TRIALS: &str = "SOCKLIFE_TRIALS";

/// The trials that were asked for.
pub struct Choice {
    only: Option<HashSet<String>>,
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
}

impl Choice {
    /// Takes from the arguments what chooses trials.
    pub fn new(filters: Vec<String>, args: &mut Arguments) -> Self {
        let only = std::env::var_os(TRIALS).map(|path| {
            let names = fs::read_to_string(path).unwrap();
            names.lines().map(str::to_owned).collect()
        });
        Self {
            only,
            filters,
            skip: mem::take(&mut args.skip),
            exact: args.exact,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        self.only.as_ref().is_none_or(|only| only.contains(name))
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skip.iter().any(fits)
    }
}
