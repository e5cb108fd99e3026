//! A number, and where it was read. What cannot be read has a reason in its place.

use std::{fs, io, path::PathBuf, str::FromStr};

/// Where `/proc` and `/sys` are.
pub struct Root(PathBuf);

impl Root {
    /// The system's own.
    pub fn system() -> Self {
        Self("/".into())
    }

    /// A folder that has files in the places of the system's.
    #[cfg(test)]
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Where a file of the system is under this root.
    pub fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.place(path))
    }

    /// A file that has one number.
    pub fn number(&self, path: &str) -> Reading<u64> {
        self.find(path, |text| text.trim().parse().ok())
    }

    /// What a function finds in a file.
    pub fn find<T>(&self, path: &str, find: impl FnOnce(&str) -> Option<T>) -> Reading<T> {
        let value = self.text(path).map_err(|error| why(&error)).and_then(|text| {
            find(&text).ok_or_else(|| "it does not say what was looked for: please report this".to_owned())
        });
        Reading {
            value,
            at: path.to_owned(),
        }
    }
}

/// A value or why there is none, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// The value, or the reason with what to do about it.
    pub value: Result<T, String>,
    /// A path or a system call.
    pub at: String,
}

impl<T> Reading<T> {
    /// Something that was read.
    pub fn new(value: T, at: &str) -> Self {
        Self {
            value: Ok(value),
            at: at.to_owned(),
        }
    }

    /// Something that could not be.
    pub fn unknown(reason: String, at: &str) -> Self {
        Self {
            value: Err(reason),
            at: at.to_owned(),
        }
    }

    /// The value where it is known.
    pub fn known(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

/// An error of a file, with what to do about it.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "not permitted: run socklife as root (sudo)".to_owned(),
        io::ErrorKind::NotFound => "this kernel or container does not have it".to_owned(),
        _ => error.to_string(),
    }
}

/// The words of a line that begins with `key`, which is a whole word.
pub fn field<'a>(text: &'a str, key: &str) -> Option<std::str::SplitWhitespace<'a>> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        rest.is_empty()
            .then_some(rest)
            .or_else(|| rest.starts_with(char::is_whitespace).then_some(rest))
            .map(str::split_whitespace)
    })
}

/// The first number after a key.
pub fn number<T: FromStr>(text: &str, key: &str) -> Option<T> {
    field(text, key)?.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Root, field, number};

    #[test]
    fn a_key_is_a_whole_word() {
        let text = "MemTotalX: 1\nMemTotal:     16384 kB\nPids:\t7\n";
        assert_eq!(number(text, "MemTotal:"), Some(16384));
        assert_eq!(number(text, "Pids:"), Some(7));
        assert_eq!(number::<u64>(text, "Mem"), None);
        assert_eq!(field(text, "MemTotal:").map(Iterator::count), Some(2));
    }

    #[test]
    fn what_is_not_there_has_a_reason() {
        let root = Root::at(std::env::temp_dir().join("socklife-no-such-folder"));
        let reading = root.number("/proc/sys/fs/nr_open");
        assert_eq!(reading.at, "/proc/sys/fs/nr_open");
        assert!(reading.value.is_err_and(|reason| reason.contains("does not have it")));
    }
}

#[cfg(test)]
pub mod fixture {
    //! Files in the places of the system's.

    use std::{
        fs,
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::Root;

    static NEXT: AtomicU32 = AtomicU32::new(0);

    /// A folder with these files, which goes at the end.
    pub struct Fixture {
        pub root: Root,
        folder: PathBuf,
    }

    impl Fixture {
        pub fn new(files: &[(&str, &str)]) -> Self {
            let name = format!("socklife-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
            let folder = std::env::temp_dir().join(name);
            for (path, text) in files {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
                fs::write(path, text).expect("it can be written");
            }
            Self {
                root: Root::at(folder.clone()),
                folder,
            }
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
