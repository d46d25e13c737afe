//! The `vanderpool` command.
fn main() {}
