//! Which trials run: libtest's filters, and as many of them as one likes.

use std::mem;

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

/// The trials that were asked for.
pub struct Choice {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
}

impl Choice {
    /// Takes from the arguments what chooses trials.
    pub fn new(filters: Vec<String>, args: &mut Arguments) -> Self {
        Self {
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
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}
