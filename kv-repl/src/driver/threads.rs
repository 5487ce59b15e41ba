//! Threads of a node. Whatever one of them dies of, the core's task hears of it and ends the node: a node that has lost
//! one silently would keep its clients waiting for ever.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;
use tracing::error;

use super::task::Own;

/// Starts a thread that does `work`. If that fails or panics, the node ends with the reason, which begins with `what`.
pub(crate) fn spawn(
    what: &'static str,
    core: UnboundedSender<Own>,
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let guarded = move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        if let Err(trouble) = outcome {
            let reason = format!("{what}: {trouble}");
            error!(%reason, "this node leaves the cluster until it is restarted");
            // The core may have ended first.
            let _ = core.send(Own::Failed(reason));
        }
    };
    thread::Builder::new().name(format!("kv-{what}")).spawn(guarded)
}

/// That something has panicked, and what it said.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("panicked: {}", message_of(panic))
}

/// What a panic said.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}
