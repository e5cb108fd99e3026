//! Durations for people.

/// Nanoseconds as milliseconds, with the digits that matter.
pub fn millis(ns: u64) -> String {
    let (whole, part) = (ns / 1_000_000, ns / 1000 % 1000);
    match whole {
        0..100 => format!("{whole}.{part:03}"),
        100..10_000 => format!("{whole}.{}", part / 100),
        _ => whole.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::millis;

    #[test]
    fn milliseconds_have_the_digits_that_matter() {
        for (ns, shown) in [
            (0, "0.000"),
            (46_999, "0.046"),
            (99_999_999, "99.999"),
            (100_000_000, "100.0"),
            (250_113_000, "250.1"),
            (9_999_999_999, "9999.9"),
            (10_000_000_000, "10000"),
            (u64::MAX, "18446744073709"),
        ] {
            assert_eq!(millis(ns), shown, "{ns}");
        }
    }
}
