//! Lines that somebody prints, as they come; whoever waits for one is woken.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The lines of one stream, or of one part of it.
#[derive(Default)]
pub struct Lines {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    all: Vec<String>,
    /// By kind of event: how many.
    kinds: HashMap<String, usize>,
    ended: bool,
}

impl Lines {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn push(&self, line: String) {
        let mut inner = self.inner();
        if let Some(kind) = kind(&line) {
            match inner.kinds.get_mut(kind) {
                Some(count) => *count += 1,
                None => _ = inner.kinds.insert(kind.to_owned(), 1),
            }
        }
        inner.all.push(line);
        drop(inner);
        self.changed.notify_all();
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_all();
    }

    /// Waits until there are so many events of a kind, or nothing more comes.
    pub fn wait_for(&self, kind: &str, count: usize, patience: Duration) {
        self.wait_until(patience, |inner| inner.kinds.get(kind).copied().unwrap_or(0) >= count);
    }

    /// Waits for the end; false when it does not come in time.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        self.wait_until(patience, |_| false);
        self.inner().ended
    }

    fn wait_until(&self, patience: Duration, fact: impl Fn(&Inner) -> bool) {
        let end = Instant::now() + patience;
        let mut inner = self.inner();
        while !inner.ended && !fact(&inner) {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                break;
            };
            inner = self.changed.wait_timeout(inner, left).unwrap().0;
        }
    }

    /// How many lines hold this text so far.
    pub fn count(&self, text: &str) -> usize {
        self.inner().all.iter().filter(|line| line.contains(text)).count()
    }

    /// The last event of a kind so far.
    pub fn last(&self, wanted: &str) -> Option<String> {
        let inner = self.inner();
        inner.all.iter().rfind(|line| kind(line) == Some(wanted)).cloned()
    }

    pub fn all(&self) -> Vec<String> {
        self.inner().all.clone()
    }
}

/// The text of a member of a line in JSON, where that is a string without escapes.
pub fn member<'a>(line: &'a str, start: &str, end: char) -> Option<&'a str> {
    let (_, rest) = line.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// The kind of the event that a line tells.
pub fn kind(line: &str) -> Option<&str> {
    member(line, "\"event\":\"", '"')
}
