//! For tests of this crate and of programs that embed it (feature `testing`).
//!
//! [`sim`] runs a whole cluster on one thread from one seed and lets everything go wrong that can; [`linearizability`]
//! judges what its clients saw.

pub mod linearizability;
pub mod sim;
