//! Tasks that end with the node.

use std::mem;

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// The running ones. They are aborted when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock();
        // Those that have ended are forgotten.
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    /// Aborts all, whatever they wait for, and those that they start meanwhile.
    pub(crate) fn abort(&self) {
        self.0.lock().abort_all();
    }

    /// Aborts all, and returns when they are gone and with them all they held.
    pub(crate) async fn shutdown(&self) {
        loop {
            let mut running = mem::take(&mut *self.0.lock());
            if running.is_empty() {
                return;
            }
            running.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Whoever hears that a node has ended can use its address: nothing may hold on to it.
    #[tokio::test]
    async fn what_tasks_held_is_free_when_they_have_been_shut_down() {
        let (tasks, held) = (Arc::new(Tasks::default()), Arc::new(()));
        for _ in 0..10 {
            let (all, held) = (tasks.clone(), held.clone());
            tasks.spawn(async move {
                loop {
                    let held = held.clone();
                    all.spawn(async move {
                        std::future::pending::<()>().await;
                        drop(held);
                    });
                    tokio::task::yield_now().await;
                }
            });
        }
        tokio::task::yield_now().await;
        tasks.shutdown().await;
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&tasks)), (1, 1));
    }
}
