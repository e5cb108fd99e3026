//! socklife.
fn main() {}
