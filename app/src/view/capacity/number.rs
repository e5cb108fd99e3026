//! Numbers from one to all four-tuples of IPv6.

use std::fmt;

use crate::output::Grouped;

/// From here on digits are no help.
const LARGE: u128 = 1_000_000_000_000;

/// A count: with commas, and as a power of ten where it is large.
pub struct Count(pub u128);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, u64::try_from(self.0)) {
            (count, Ok(number)) if count < LARGE => Grouped(number).fmt(f),
            (count, _) => {
                let power = count.ilog10();
                let tenths = count / 10_u128.pow(power - 1);
                // What did not fit was clamped.
                let over = if count == u128::MAX { "over " } else { "" };
                write!(f, "{over}{}.{} × 10^{power}", tenths / 10, tenths % 10)
            }
        }
    }
}

/// Bytes, in units of 1024.
pub struct Bytes(pub u128);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let unit = usize::try_from((self.0.ilog2() / 10).clamp(1, 4)).unwrap_or(1);
        let tenths = self.0.saturating_mul(10) >> (10 * unit);
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Count};

    #[test]
    fn counts_stay_readable() {
        for (count, shown) in [
            (0, "0"),
            (262_140, "262,140"),
            (999_999_999_999, "999,999,999,999"),
            (1_000_000_000_000, "1.0 × 10^12"),
            (244_087_856_824_320, "2.4 × 10^14"),
            (u128::from(u64::MAX), "1.8 × 10^19"),
            (u128::MAX, "over 3.4 × 10^38"),
        ] {
            assert_eq!(Count(count).to_string(), shown);
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (3768, "3.6 KiB"),
            (8_589_934_591, "7.9 GiB"),
            (u128::from(u64::MAX), "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }
}
