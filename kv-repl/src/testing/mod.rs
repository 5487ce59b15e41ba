//! For tests of this crate and of programs that embed it (feature `testing`).

pub mod linearizability;
