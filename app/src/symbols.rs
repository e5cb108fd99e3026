//! Names of places in the kernel's code, from `/proc/kallsyms`.

use std::{borrow::Cow, fs, ops::Range, sync::OnceLock};

const KALLSYMS: &str = "/proc/kallsyms";

/// The kernel's functions, by address.
struct Symbols {
    text: String,
    /// Address, and where in the text its name stands.
    places: Vec<(u64, Range<usize>)>,
}

static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

/// Read once: it takes a while, and later we may not be allowed to (`kptr_restrict`). Empty where we are not.
fn symbols() -> &'static Symbols {
    SYMBOLS.get_or_init(|| parse(fs::read_to_string(KALLSYMS).unwrap_or_default()))
}

fn parse(text: String) -> Symbols {
    let mut places = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let begin = start;
        start += line.len();
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            continue;
        };
        if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
            continue;
        }
        if let Some(at) = line.find(name) {
            places.push((address, begin + at..begin + at + name.len()));
        }
    }
    places.sort_by_key(|(address, _)| *address);
    Symbols { text, places }
}

impl Symbols {
    fn name(&self, address: u64) -> Option<&str> {
        let after = self.places.partition_point(|(place, _)| *place <= address);
        let (_, name) = self.places.get(after.checked_sub(1)?)?;
        // Behind the last there may be anything.
        (after < self.places.len()).then(|| self.text.get(name.clone()))?
    }

    fn range(&self, name: &str) -> Option<Range<u64>> {
        let at = self
            .places
            .iter()
            .position(|(_, place)| self.text.get(place.clone()) == Some(name))?;
        let (from, _) = self.places.get(at)?;
        let (to, _) = self.places.get(at..)?.iter().find(|(place, _)| place > from)?;
        Some(*from..*to)
    }
}

/// The function that this address is in; `None` where the kernel does not say.
fn name(address: u64) -> Option<&'static str> {
    symbols().name(address)
}

/// The function that something returns to, or the address; `None` where that is not known. A call may be a function's last
/// instruction.
pub fn shown(returned_to: u64) -> Option<Cow<'static, str>> {
    let call = returned_to.checked_sub(1)?;
    Some(name(call).map_or_else(|| Cow::Owned(format!("0x{returned_to:x}")), Cow::Borrowed))
}

/// Where a function is.
pub fn range(name: &str) -> Option<Range<u64>> {
    symbols().range(name)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let symbols = parse(
            "0000000000000100 T first\n0000000000000200 t second\t[module]\n0000000000000180 D data\n\
             0000000000000300 T end\n"
                .to_owned(),
        );
        assert_eq!(symbols.name(0xff), None);
        assert_eq!(symbols.name(0x1ff), Some("first"));
        assert_eq!(symbols.name(0x200), Some("second"));
        assert_eq!(symbols.name(0x300), None);
        assert_eq!(symbols.range("first"), Some(0x100..0x200));
        assert_eq!(symbols.range("data"), None);
        assert_eq!(parse("0000000000000000 T hidden\n".to_owned()).name(0), None);
    }
}
