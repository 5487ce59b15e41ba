//! The `kv-node` binary.

fn main() {}
