//! Exact replies, of the real session on a real store, without a cluster.

mod replies;
mod single;
