//! The boot clock of events, as wall clock.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

const SECOND: i64 = 1_000_000_000;

/// Translates event times. The wall clock may be set while we run, so the two are compared again every second.
pub struct Clock {
    /// Wall clock minus boot clock, in nanoseconds.
    offset: i64,
    compared: Instant,
    zone: TimeZone,
    /// The last whole second shown, and its text.
    utc: Cached,
    local: Cached,
}

#[derive(Default)]
struct Cached {
    second: Option<i64>,
    text: String,
}

impl Clock {
    /// In the system's time zone.
    pub fn new() -> Self {
        Self {
            offset: offset(),
            compared: Instant::now(),
            zone: TimeZone::system(),
            utc: Cached::default(),
            local: Cached::default(),
        }
    }

    /// Looks at the clocks again, if that was long ago.
    pub fn adjust(&mut self) {
        if self.compared.elapsed() > Duration::from_secs(1) {
            self.offset = offset();
            self.compared = Instant::now();
        }
    }

    fn wall(&self, boot_ns: u64) -> (i64, u32) {
        // No clock goes beyond the year 2262.
        let ns = self.offset.saturating_add_unsigned(boot_ns);
        (ns.div_euclid(SECOND), ns.rem_euclid(SECOND) as u32)
    }

    /// RFC 3339 in UTC with nanoseconds.
    pub fn rfc3339(&mut self, boot_ns: u64, out: &mut String) {
        let (second, ns) = self.wall(boot_ns);
        out.push_str(self.utc.show(second, "%Y-%m-%dT%H:%M:%S", &TimeZone::UTC));
        fraction::<9>(ns, out);
        out.push('Z');
    }

    /// Time of day in the local zone, with microseconds.
    pub fn time_of_day(&mut self, boot_ns: u64, out: &mut String) {
        let (second, ns) = self.wall(boot_ns);
        out.push_str(self.local.show(second, "%H:%M:%S", &self.zone));
        fraction::<6>(ns / 1000, out);
    }
}

/// A point and so many digits.
fn fraction<const DIGITS: usize>(mut value: u32, out: &mut String) {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.push('.');
    out.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}

impl Cached {
    fn show(&mut self, second: i64, format: &str, zone: &TimeZone) -> &str {
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{}", time.to_zoned(zone.clone()).strftime(format));
        }
        &self.text
    }
}

/// Now, on the boot clock.
pub fn boot_ns() -> u64 {
    u64::try_from(read(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// The wall clock minus the monotonic one, in nanoseconds.
pub fn wall_ahead_of_monotonic() -> i128 {
    read(libc::CLOCK_REALTIME) - read(libc::CLOCK_MONOTONIC)
}

/// How often the kernel's clock ticks: the coarse clocks go by it.
pub fn ticks_per_second() -> u32 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a valid place for its resolution.
    unsafe { libc::clock_getres(libc::CLOCK_REALTIME_COARSE, &raw mut tick) };
    match u32::try_from(tick.tv_nsec) {
        Ok(ns @ 1..) => 1_000_000_000 / ns,
        _ => 1000,
    }
}

fn offset() -> i64 {
    i64::try_from(read(libc::CLOCK_REALTIME) - read(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a valid place for its time.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    i128::from(time.tv_sec) * i128::from(SECOND) + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use jiff::tz::TimeZone;

    use super::{Cached, Clock};

    #[test]
    fn times_are_shown_to_the_nanosecond_and_microsecond() {
        let mut clock = Clock {
            offset: 1_700_000_000_000_000_000,
            compared: Instant::now(),
            zone: TimeZone::UTC,
            utc: Cached::default(),
            local: Cached::default(),
        };
        let mut out = String::new();
        clock.rfc3339(1_000_000_007, &mut out);
        assert_eq!(out, "2023-11-14T22:13:21.000000007Z");
        out.clear();
        clock.time_of_day(1_999_999_999, &mut out);
        assert_eq!(out, "22:13:21.999999");
    }
}
