//! What a task says: progress on stderr, results on stdout.

/// Says one step, in one line, on stderr.
pub fn step(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// Prints one line of a result on stdout.
#[expect(clippy::print_stdout, reason = "the one place where results are printed")]
pub fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}
