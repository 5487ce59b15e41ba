//! The processes of the nodes: started, waited for, and asked to stop.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ClusterError, NodePlan, last_line};

/// How long a node may take to stop by itself.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

/// The running nodes.
#[derive(Default)]
pub(super) struct Children {
    running: JoinSet<Ended>,
    stop: CancellationToken,
}

/// How a node ended.
pub(super) struct Ended {
    id: u16,
    pid: u32,
    log: PathBuf,
    status: io::Result<ExitStatus>,
}

impl Children {
    /// Starts a node, and gives its process id. Its log is added to the file in its directory.
    pub(super) fn start(&mut self, plan: &NodePlan) -> Result<u32, ClusterError> {
        let log = plan.log_path();
        let failed = |source| ClusterError::Directory { path: log.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let child = Command::new(&plan.program)
            .args(&plan.arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // A group of its own: Ctrl-C in the terminal reaches this process only, which then stops the nodes.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(ClusterError::Spawn)?;
        let pid = child.id().unwrap_or_default();
        let (id, stop) = (plan.id, self.stop.clone());
        self.running.spawn(async move { Ended { id, pid, log, status: run(child, stop).await } });
        Ok(pid)
    }

    /// How many are running.
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Waits for the next one to end; `None` if none is left.
    pub(super) async fn next_end(&mut self) -> Option<Ended> {
        match self.running.join_next().await? {
            Ok(ended) => Some(ended),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Asks all to stop, and waits for them.
    pub(super) async fn stop(mut self) -> Vec<Ended> {
        self.stop.cancel();
        let mut all = Vec::new();
        while let Some(ended) = self.next_end().await {
            all.push(ended);
        }
        all
    }
}

async fn run(mut child: Child, stop: CancellationToken) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = stop.cancelled() => {}
    }
    // The id is there as long as the process has not been waited for, so it is no other process's.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM)?;
    }
    match timeout(STOP_TIME_MAX, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.kill().await?;
            child.wait().await
        }
    }
}

impl Ended {
    /// Whether it ended as it should when asked to.
    pub(super) fn well(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (pid {}) ended: ", self.id, self.pid)?;
        match &self.status {
            Ok(status) => write!(f, "{status}")?,
            Err(error) => write!(f, "{error}")?,
        }
        write!(f, "; its log is {}", self.log.display())?;
        match last_line(&self.log) {
            Some(line) => write!(f, ", and ends with: {line}"),
            None => Ok(()),
        }
    }
}
