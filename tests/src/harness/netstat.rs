//! The kernel's own counters of a network namespace: the independent witness of what became of SYNs and ACKs.

use std::{collections::BTreeMap, fs};

/// Counters by name, as `nstat` has them without their prefix.
pub struct Netstat(BTreeMap<String, u64>);

impl Netstat {
    /// Of the calling thread's namespace.
    pub fn now() -> Self {
        let mut all = BTreeMap::new();
        for file in ["netstat", "snmp"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.chunks(2) {
                let names = pair[0].split(' ').skip(1);
                let values = pair[1].split(' ').skip(1);
                for (name, value) in names.zip(values) {
                    // Some of `snmp` are negative, and none of ours.
                    all.insert(name.to_owned(), value.parse().unwrap_or(0));
                }
            }
        }
        Self(all)
    }

    /// How much a counter grew since then.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.0[name] - before.0[name]
    }
}
