//! Messages to the runner's task: requests of the agent, and events of processes.

use tokio::sync::{mpsc, oneshot};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit, ReportAccepted},
    ids::{Generation, ProcessId},
};

use super::{
    Node, handle::DesiredSetError, images::ProcessImages, lifecycle::Change, probe::Finding,
    process::Process, task::Runner,
};

/// A message to the runner's task.
#[derive(Debug)]
pub(super) enum Message {
    Desire(
        Box<DesiredSet>,
        oneshot::Sender<Result<Generation, DesiredSetError>>,
    ),
    Answered(ReportAccepted),
    Count(oneshot::Sender<usize>),
    Held(oneshot::Sender<Vec<DesiredProcess>>),
    Event {
        id: ProcessId,
        attempt: u64,
        event: Event,
    },
}

/// What happened to a process.
#[derive(Debug)]
pub enum Event {
    /// Its images are unpacked.
    Pulled(ProcessImages),
    /// Its container runs; this is the pid of its first process.
    Started(i32),
    /// Its image could not be pulled, or its container not started.
    Failed(String),
    /// Its container ended; the last lines of its output, if it belongs to a run.
    Ended(Exit, Vec<String>),
    /// Its health or the reason for it changed.
    Probed(Finding),
    /// It answers the probe of this desired process, which it was tried with.
    ProbeAnswered(Box<DesiredProcess>),
    /// It does not answer the probe that it is tried with.
    ProbeFailed(String),
    /// It has the limits of this desired process.
    Resized(Box<DesiredProcess>),
    /// It could not be given the limits of this desired process.
    NotResized(Box<DesiredProcess>, String),
    /// Its file system holds this many bytes.
    DiskUsed(u64),
    /// It could not be killed.
    NotKilled(String),
    /// It was removed.
    Removed,
    /// It could not be removed completely.
    NotRemoved(String),
}

/// Sends the events of one attempt to run a process to the runner.
#[derive(Debug, Clone)]
pub struct EventSender {
    pub(super) id: ProcessId,
    pub(super) attempt: u64,
    pub(super) messages: mpsc::Sender<Message>,
}

impl EventSender {
    /// The process that the events are of.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Sends an event; it is dropped if the runner has ended, which it does only with the agent.
    pub async fn send(&self, event: Event) {
        let message = Message::Event {
            id: self.id.clone(),
            attempt: self.attempt,
            event,
        };
        drop(self.messages.send(message).await);
    }
}

impl<N: Node> Runner<N> {
    /// Applies an event of the current attempt to run a process; events of earlier attempts are ignored.
    pub(super) async fn handle_event(&mut self, id: &ProcessId, attempt: u64, event: Event) {
        let Some(process) = self.processes.get_mut(id).filter(|p| p.attempt == attempt) else {
            return;
        };
        let now = self.clock.elapsed();
        match event {
            Event::Pulled(images) => process.pulled(images, now),
            Event::Started(pid) => {
                tracing::info!(%id, pid, "started");
                process.started(pid, now);
                self.store_record(id).await;
                self.watch(id);
            }
            Event::Failed(reason) => {
                tracing::warn!(%id, %reason, "cannot start");
                process.failed(reason, now);
            }
            Event::Ended(exit, last_lines) => {
                tracing::info!(%id, %exit, "ended");
                process.ended(exit, last_lines, now);
                self.store_record(id).await;
            }
            Event::Probed(finding) => {
                process.probed(finding, now);
                self.store_record(id).await;
            }
            Event::ProbeAnswered(tried) => {
                process.take_probe(&tried);
                self.probe(id);
            }
            Event::ProbeFailed(reason) => process.probe_refused(&reason),
            Event::Resized(with) => {
                tracing::info!(%id, "its limits are changed");
                process.resized(&with, now);
                self.store_record(id).await;
            }
            Event::NotResized(tried, reason) => {
                tracing::warn!(%id, %reason, "cannot change its limits");
                process.not_resized(*tried, &reason, now);
            }
            Event::DiskUsed(bytes) => self.disk_used(id, bytes),
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
                self.collect_garbage();
            }
        }
    }

    /// Notes the disk usage of a process, and kills it if that exceeds its limit.
    pub(super) fn disk_used(&mut self, id: &ProcessId, bytes: u64) {
        let process = self.processes.get_mut(id);
        if process.is_some_and(|process| process.exceeds_disk(bytes)) {
            tracing::warn!(%id, bytes, "killing it: its disk usage exceeds its limit");
            self.kill(id);
        }
    }

    /// Stores the record for the next agent. A failure is logged; the process goes on.
    pub(super) async fn store_record(&mut self, id: &ProcessId) {
        let Some(record) = self.processes.get(id).map(Process::record) else {
            return;
        };
        if let Err(error) = self.machine.store_record(&record).await {
            tracing::warn!(%id, %error, "cannot store the process's record");
        }
    }
}
