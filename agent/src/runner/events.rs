//! What happens to processes, told to the runner's task by those that carry out its steps.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tucano_api::{
    agent::{DesiredSet, Exit, ReportAccepted},
    ids::{Generation, ProcessId},
};
use tucano_oci_runtime::supervisor::Running;

use super::{
    handle::Refused, images::Unpacked, lifecycle::Change, probe::Finding, process::Process,
    task::Runner,
};

/// Something for the runner's task.
#[derive(Debug)]
pub(super) enum Message {
    Desire(
        Box<DesiredSet>,
        oneshot::Sender<Result<Generation, Refused>>,
    ),
    Answered(ReportAccepted),
    Count(oneshot::Sender<usize>),
    Happened {
        id: ProcessId,
        attempt: u64,
        event: Event,
    },
}

/// What happened to a process.
#[derive(Debug)]
pub(super) enum Event {
    Pulled(Arc<Unpacked>),
    Started(Arc<Running>),
    Failed(String),
    Ended(Exit),
    Probed(Finding),
    /// Bytes that its file system holds.
    Wrote(u64),
    NotKilled(String),
    Removed,
    NotRemoved(String),
}

/// Tells the runner what happened in one attempt to run one process.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    pub(super) id: ProcessId,
    pub(super) attempt: u64,
    pub(super) messages: mpsc::Sender<Message>,
}

impl Teller {
    pub(super) async fn tell(&self, event: Event) {
        let message = Message::Happened {
            id: self.id.clone(),
            attempt: self.attempt,
            event,
        };
        // The runner ends only with the agent.
        drop(self.messages.send(message).await);
    }
}

impl Runner {
    /// Takes what an attempt to run a process has told; what an earlier attempt tells late is not heard.
    pub(super) async fn happened(&mut self, id: &ProcessId, attempt: u64, event: Event) {
        let Some(process) = self.processes.get_mut(id).filter(|p| p.attempt == attempt) else {
            return;
        };
        let now = self.clock.elapsed();
        match event {
            Event::Pulled(image) => process.pulled(image, now),
            Event::Started(running) => {
                tracing::info!(%id, pid = running.pid, "started");
                process.started(running, now);
                self.keep(id).await;
                self.attend(id);
            }
            Event::Failed(reason) => {
                tracing::warn!(%id, %reason, "cannot start");
                process.failed(reason, now);
            }
            Event::Ended(exit) => {
                tracing::info!(%id, %exit, "ended");
                process.ended(exit, now);
                self.keep(id).await;
            }
            Event::Probed(finding) => {
                process.probed(finding, now);
                self.keep(id).await;
            }
            Event::Wrote(bytes) => {
                if process.wrote(bytes) {
                    tracing::warn!(%id, bytes, "it wrote more than its disk limit: killing it");
                    self.kill(id);
                }
            }
            Event::NotKilled(reason) => {
                tracing::warn!(%id, %reason, "cannot kill");
                process.reason = Some(reason);
                process.actual.apply(Change::NotKilled, now);
            }
            Event::NotRemoved(reason) => {
                tracing::warn!(%id, %reason, "cannot remove");
                process.reason = Some(reason);
                process.actual.apply(Change::NotRemoved, now);
            }
            Event::Removed => {
                tracing::info!(%id, "removed");
                self.processes.remove(id);
                self.tidy();
            }
        }
    }

    /// Keeps what a later agent must know; a failure is told, and the process goes on.
    async fn keep(&mut self, id: &ProcessId) {
        let Some(record) = self.processes.get(id).map(Process::record) else {
            return;
        };
        let executor = Arc::clone(&self.executor);
        let kept = tokio::task::spawn_blocking(move || {
            let directory = executor.data.process(&record.process.id);
            directory.keep(&record)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%id, %error, "cannot keep the process's state");
        }
    }
}
