//! Comparing version numbers as dpkg does.

use std::cmp::Ordering;

/// Orders two Debian versions.
///
/// The order is that of deb-version(7): epoch, upstream version, revision.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Parts::of(left), Parts::of(right));
    left.epoch
        .cmp(&right.epoch)
        .then_with(|| compare_part(left.upstream, right.upstream))
        .then_with(|| compare_part(left.revision, right.revision))
}

/// The upstream version in a Debian one: `1.95.0` in `1.95.0+dfsg1-2~bpo13+1`.
pub fn upstream(version: &str) -> &str {
    let upstream = Parts::of(version).upstream;
    upstream.split(['+', '~']).next().unwrap_or(upstream)
}

struct Parts<'a> {
    epoch: u32,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Self {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        Self {
            epoch: epoch.parse().unwrap_or(0),
            upstream,
            revision,
        }
    }
}

/// Compares text and numbers by turns, text by dpkg's own order of characters.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let text;
        (text, left) = split_at_first(left, |c| c.is_ascii_digit());
        let other;
        (other, right) = split_at_first(right, |c| c.is_ascii_digit());
        let order = compare_text(text, other);
        if order.is_ne() {
            return order;
        }
        let number;
        (number, left) = split_at_first(left, |c| !c.is_ascii_digit());
        let other;
        (other, right) = split_at_first(right, |c| !c.is_ascii_digit());
        let order = number_of(number).cmp(&number_of(other));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn number_of(digits: &str) -> u64 {
    digits.parse().unwrap_or(0)
}

/// `~` comes before the end, the end before letters, letters before all else.
fn compare_text(left: &str, right: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    let (mut left, mut right) = (left.chars(), right.chars());
    loop {
        let (a, b) = (left.next(), right.next());
        match rank(a).cmp(&rank(b)) {
            Ordering::Equal if a.is_none() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        for (older, newer) in [
            ("5.10.0-9", "5.10.0-46"),
            ("6.1.0-0.deb11.52", "6.1.0-47"),
            ("6.12.90+deb12", "6.12.90+deb12.1"),
            ("6.12.90+deb13.1", "6.12.100+deb12"),
            ("6.12.117+deb12", "6.12.117+deb13"),
            ("1.95.0+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2"),
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0a"),
            ("9.0", "1:1.0"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} < {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} > {older}");
        }
        assert_eq!(compare("1.2-3", "1.2-3"), Ordering::Equal);
    }

    #[test]
    fn upstream_is_without_repack_and_revision() {
        assert_eq!(upstream("1.95.0+dfsg1-2~bpo13+1"), "1.95.0");
        assert_eq!(upstream("1.96.0+dfsg1-1~deb13u1+b1"), "1.96.0");
        assert_eq!(upstream("2:22.1.8-1"), "22.1.8");
    }
}
