//! Whole histories through the public interface, with nodes of their real size.

mod commands;
mod history;
mod model;
mod twin;
