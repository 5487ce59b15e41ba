//! Whole histories through the public interface, with nodes of their real size.

mod history;
mod model;
