//! The kernel's functions by address: `/proc/kallsyms`.

use std::{
    borrow::Cow,
    fs::File,
    io::Read as _,
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
};

const KALLSYMS: &str = "/proc/kallsyms";

/// Opened while we may: the kernel asks who opens it, not who reads (`kallsyms_open`).
static SOURCE: OnceLock<Mutex<File>> = OnceLock::new();

/// Read when the first address is looked up: it is some megabytes of text.
static SYMBOLS: LazyLock<Symbols> = LazyLock::new(|| {
    let mut text = String::new();
    if let Some(source) = SOURCE.get() {
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be read has no names; addresses are shown as they are.
        let _ = source.read_to_string(&mut text);
    }
    Symbols::parse(&text)
});

/// Makes names available from now on, whatever privileges are given up later.
pub fn open() {
    // One that cannot be opened leaves addresses without names.
    if let Ok(file) = File::open(KALLSYMS) {
        let _ = SOURCE.set(Mutex::new(file));
    }
}

/// The function that something returns to, or the address where the kernel does not tell; `None` where that is not known.
/// A call may be a function's last instruction.
pub fn shown(returned_to: u64) -> Option<Cow<'static, str>> {
    let call = returned_to.checked_sub(1)?;
    let function = SYMBOLS.function(call);
    Some(function.map_or_else(|| Cow::Owned(format!("{returned_to:#x}")), Cow::Borrowed))
}

/// Where a function begins and ends; `None` where the kernel does not tell.
pub fn range(name: &str) -> Option<[u64; 2]> {
    SYMBOLS.range(name)
}

/// Functions in the order of their addresses.
struct Symbols {
    names: String,
    /// Address, and where the name starts and ends.
    functions: Vec<(u64, u32, u32)>,
}

impl Symbols {
    fn parse(text: &str) -> Self {
        let mut symbols = Self {
            names: String::new(),
            functions: Vec::new(),
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else {
                continue;
            };
            // All are zero for those who may not know.
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let start = symbols.names.len();
            symbols.names.push_str(name);
            let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(symbols.names.len())) else {
                break;
            };
            symbols.functions.push((address, start, end));
        }
        symbols.functions.sort_by_key(|(address, ..)| *address);
        symbols
    }

    fn range(&self, name: &str) -> Option<[u64; 2]> {
        let place = (0..self.functions.len()).find(|place| self.name(*place) == Some(name))?;
        let (start, ..) = self.functions.get(place)?;
        let mut later = self.functions.iter().skip(place).map(|(address, ..)| *address);
        let end = later.find(|address| address > start)?;
        Some([*start, end])
    }

    fn name(&self, place: usize) -> Option<&str> {
        let (_, start, end) = self.functions.get(place)?;
        self.names.get(*start as usize..*end as usize)
    }

    fn function(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        self.name(after.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    #[test]
    fn an_address_is_in_the_function_that_starts_before_it() {
        let text = "ffffffff81000100 T tcp_v4_rcv\nffffffff81000000 t tcp_rcv\nffffffff81000080 d table\n\
                    0000000000000000 T hidden\nffffffffc0000000 t nf_hook\t[nf_tables]\nnonsense\n";
        let symbols = Symbols::parse(text);
        assert_eq!(symbols.function(0xffff_ffff_8100_0042), Some("tcp_rcv"));
        assert_eq!(symbols.function(0xffff_ffff_8100_0100), Some("tcp_v4_rcv"));
        assert_eq!(symbols.function(0xffff_ffff_c000_0007), Some("nf_hook"));
        assert_eq!(symbols.function(0xffff_ffff_8000_0000), None);
        assert_eq!(
            symbols.range("tcp_rcv"),
            Some([0xffff_ffff_8100_0000, 0xffff_ffff_8100_0100])
        );
        assert_eq!((symbols.range("nf_hook"), symbols.range("hidden")), (None, None));
        assert_eq!(Symbols::parse("").function(1), None);
    }
}
