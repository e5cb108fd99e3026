//! Writing a cpio archive in the format `newc`, which the kernel unpacks as its first root.

use std::{collections::BTreeSet, path::Path};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const END: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and those above it; one that is there already is left alone.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        self.parents(path);
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
        self.directories.insert(path.to_owned());
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | permissions, (0, 0), content);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, CHARACTER_DEVICE | permissions, (major, minor), &[]);
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let (links, owner, time, checksum) = (1, 0, 0, 0);
        let fields = [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            checksum,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents are padded to a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_directories_once() {
        let mut archive = Archive::default();
        archive.file("/etc/a", 0o644, b"one");
        archive.file("/etc/b", 0o755, b"");
        archive.character_device("/dev/console", 0o600, 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<String> = names(&bytes);
        assert_eq!(names, ["etc", "etc/a", "etc/b", "dev", "dev/console", END]);
    }

    #[test]
    fn the_header_is_newc() {
        let mut archive = Archive::default();
        archive.character_device("/c", 0o600, 5, 1);
        let bytes = archive.finish();
        let header = String::from_utf8_lossy(&bytes[..110]).into_owned();
        assert!(header.starts_with("070701"));
        assert_eq!(&header[14..22], "00002180", "mode");
        assert_eq!(&header[78..94], "0000000500000001", "device");
        assert_eq!(&header[94..102], "00000002", "length of the name");
    }

    fn names(mut bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while bytes.starts_with(b"070701") {
            let field = |index: usize| {
                let at = 6 + 8 * index;
                let text = std::str::from_utf8(&bytes[at..at + 8]).expect("ASCII");
                usize::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8_lossy(&bytes[110..110 + name_size - 1]).into_owned());
            let content = (110 + name_size).next_multiple_of(4);
            bytes = &bytes[(content + size).next_multiple_of(4)..];
        }
        names
    }
}
