//! Waits by powers of two, as bcc's tools show them.

use std::fmt::{self, Write as _};

/// The longest bar.
const BAR: usize = 40;

/// One line for each power of two microseconds from the first that is not empty, below a line of titles.
pub fn lines(powers: &[u64], out: &mut String) -> fmt::Result {
    let most = powers.iter().copied().max().unwrap_or(0);
    let Some(first) = powers.iter().position(|count| *count > 0) else {
        return Ok(());
    };
    writeln!(out, "{:>24} : count     distribution", "usecs")?;
    for (power, count) in powers.iter().enumerate().skip(first) {
        let (from, to) = bounds(power);
        let length = usize::try_from(u128::from(*count) * BAR as u128 / u128::from(most)).unwrap_or(BAR);
        let bar = "*".repeat(length);
        writeln!(out, "{from:>10} -> {to:<10} : {count:<8} |{bar:<BAR$}|")?;
    }
    Ok(())
}

/// The first and the last microsecond of a power; the first begins at zero.
pub fn bounds(power: usize) -> (u64, u64) {
    let from = 1 << power;
    (if power == 0 { 0 } else { from }, 2 * from - 1)
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn bars_are_in_proportion() {
        let mut out = String::new();
        lines(&[0, 2, 0, 80, 1], &mut out).expect("text");
        assert_eq!(
            out,
            "                   usecs : count     distribution
         2 -> 3          : 2        |*                                       |
         4 -> 7          : 0        |                                        |
         8 -> 15         : 80       |****************************************|
        16 -> 31         : 1        |                                        |
"
        );
        out.clear();
        lines(&[5], &mut out).expect("text");
        assert!(out.contains("\n         0 -> 1          : 5 "), "{out}");
        out.clear();
        lines(&[], &mut out).expect("text");
        assert_eq!(out, "");
    }
}
