//! Names that a stranger chose must not reach the terminal as commands.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// A task's `comm`, fit for a terminal: control characters, and what reorders text, are escaped.
pub struct Comm(pub [u8; 16]);

impl Comm {
    fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// The name itself, where nothing in it must be escaped; nearly all are so.
    pub fn plain(&self) -> Option<&str> {
        let bytes = self.bytes();
        let plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if plain { std::str::from_utf8(bytes).ok() } else { None }
    }
}

impl Serialize for Comm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.plain() {
            Some(plain) => serializer.serialize_str(plain),
            None => serializer.collect_str(self),
        }
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plain) = self.plain() {
            return f.pad(plain);
        }
        let mut shown = String::with_capacity(16);
        for chunk in self.bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || reorders(c) {
                    shown.extend(c.escape_default());
                } else {
                    shown.push(c);
                }
            }
            for byte in chunk.invalid() {
                write!(shown, "\\x{byte:02x}")?;
            }
        }
        f.pad(&shown)
    }
}

/// Bidirectional controls, invisible separators (`Cf` and line breaks of Unicode that terminals or editors obey).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::Comm;

    fn shown(name: &[u8]) -> String {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name);
        Comm(comm).to_string()
    }

    #[test]
    fn plain_names_stay() {
        assert_eq!(shown(b"nginx"), "nginx");
        assert_eq!(shown(b"sixteen-bytes-ab"), "sixteen-bytes-ab");
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b""), "");
        assert_eq!(format!("{:<8}|", Comm(*b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0")), "sh      |");
    }

    #[test]
    fn commands_to_a_terminal_are_escaped() {
        assert_eq!(shown(b"\x1b[31mred"), "\\u{1b}[31mred");
        assert_eq!(shown(b"a\r\nb\x07"), "a\\r\\nb\\u{7}");
        assert_eq!(shown("\u{9b}2J".as_bytes()), "\\u{9b}2J");
        assert_eq!(shown("\u{202e}evil".as_bytes()), "\\u{202e}evil");
        assert_eq!(shown(b"\xff\xfe!"), "\\xff\\xfe!");
    }
}
