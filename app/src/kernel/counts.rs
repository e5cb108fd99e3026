//! The programs' counters, read where they stand: a look by bpf(2) would keep kprobes on that CPU from running
//! meanwhile (`bpf_disable_instrumentation`), and events would be missed because somebody counts them.

use std::{
    io::Error,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use socklife_abi::counter::{COUNTERS, Counter};

/// The numbers of the CPUs that there may be: `0-3`, `0,2-5`.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// How many the map has: so many for each CPU, up to the one with the highest number.
pub fn entries() -> Result<u32> {
    let possible = std::fs::read_to_string(POSSIBLE).with_context(|| format!("cannot read {POSSIBLE}"))?;
    let highest = highest(&possible).with_context(|| format!("{POSSIBLE} says {possible:?}"))?;
    u32::try_from(COUNTERS * (highest + 1)).context("too many CPUs")
}

/// Numbers may be left out, so they cannot be counted.
fn highest(cpus: &str) -> Option<usize> {
    cpus.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// The counters of every CPU, mapped.
pub struct Counts {
    figures: NonNull<AtomicU64>,
    cpus: usize,
    /// Keeps the map.
    _map: MapData,
}

impl Counts {
    /// Of the map with that many entries.
    pub fn map(map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map COUNTS is no array");
        };
        let entries = entries()? as usize;
        let length = NonZero::new(entries * size_of::<u64>()).context("no counters")?;
        // SAFETY: a new mapping, as large as the map is.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length.get(),
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error()).context("cannot map the kernel's counters");
        }
        Ok(Self {
            figures: NonNull::new(start.cast()).context("a mapping at address 0")?,
            cpus: entries / COUNTERS,
            _map: map,
        })
    }

    /// The total of all CPUs.
    pub fn sum(&self, counter: Counter) -> u64 {
        (0..self.cpus)
            .map(|cpu| {
                // SAFETY: the mapping has so many figures, and lasts as long as this.
                let figure = unsafe { self.figures.add(cpu * COUNTERS + counter.slot()).as_ref() };
                figure.load(Relaxed)
            })
            .fold(0, u64::wrapping_add)
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.figures.as_ptr().cast(), self.cpus * COUNTERS * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::highest;

    #[test]
    fn the_highest_number_counts() {
        assert_eq!(highest("0\n"), Some(0));
        assert_eq!(highest("0-3\n"), Some(3));
        assert_eq!(highest("0,2-5,8\n"), Some(8));
        assert_eq!(highest("\n"), None);
    }
}
