//! An ordered in-memory key-value state machine with O(1) read views and a state hash that is always current.

#![forbid(unsafe_code)]
