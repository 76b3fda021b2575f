//! Output of several processes for one client.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::mpsc, task::JoinSet};
use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    logs::{KeptOutput, Since},
    units::Timestamp,
};

use super::{
    LogQuery,
    agent::{self, Answer, OutputError},
    lines::{Form, LineWriter, OwnedLine},
    processes_of,
};
use crate::{agent_mgr::AgentAddress, http::Api};

/// How often a follower checks for new processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Copies the lines of several processes for one client.
#[derive(Clone)]
pub(super) struct LogMerger {
    pub(super) api: Arc<Api>,
    pub(super) lines: mpsc::Sender<Bytes>,
    pub(super) form: Form,
}

/// How far a process's output was copied.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Whether its node has answered.
    has_begun: bool,
    /// Time of the last line, and number of lines of that time.
    last: Option<(Timestamp, u64)>,
    /// The error that was shown last.
    error: Option<String>,
}

impl Progress {
    fn note(&mut self, line: &OwnedLine) {
        if let Some(time) = line.time.filter(|_| line.is_complete) {
            match &mut self.last {
                Some((last, count)) if *last == time => *count += 1,
                last => *last = Some((time, 1)),
            }
        }
    }

    /// The part that comes next.
    fn rest(&self, which: &LogQuery) -> LogQuery {
        let mut which = which.clone();
        match self.last {
            _ if !self.has_begun => {}
            Some((time, _)) => {
                which.since = Some(Since::At(time));
                which.tail = None;
            }
            // Without times, what was written since is not known.
            None => which.tail = Some(0),
        }
        which
    }

    /// Drops the lines of the last time that were copied already.
    fn skip_copied(&self) -> impl FnMut(&OwnedLine) -> bool + use<> {
        let last = self.last;
        let (mut left, mut is_over) = last.map_or((0, true), |(_, count)| (count, false));
        move |line| {
            if is_over {
                return false;
            }
            let is_of_last = match (line.time, last) {
                (Some(time), Some((last, _))) => time == last,
                _ => true,
            };
            is_over = !is_of_last || left == 0;
            if !is_over && line.time.is_some() && line.is_complete {
                left -= 1;
            }
            !is_over
        }
    }
}

impl LogMerger {
    /// Copies the output of removed processes, oldest first.
    pub(super) async fn copy_kept(&self, kept: Vec<(AgentAddress, KeptOutput)>, which: &LogQuery) {
        let which = LogQuery {
            follow: false,
            ..which.clone()
        };
        for (address, output) in kept {
            let query = which.for_agent(&self.api);
            // It may be removed meanwhile.
            if let Ok(answer) = agent::request_at(&self.api, address, &output.id, &query).await {
                self.copy_lines(&output.id, answer, &mut Progress::default())
                    .await;
            }
        }
    }

    /// Copies the past output of a process. An error becomes a line.
    pub(super) async fn copy_past(&self, node: NodeName, id: ProcessId, which: &LogQuery) {
        self.copy(&node, &id, which, &mut Progress::default()).await;
    }

    /// Follows all processes, including later ones, until the client disconnects or the service is removed.
    pub(super) async fn follow(&self, name: ServiceName, which: LogQuery) {
        let mut reading = JoinSet::new();
        let mut open = BTreeSet::new();
        let mut seen: BTreeMap<ProcessId, Progress> = BTreeMap::new();
        let mut is_first_look = true;
        let mut look = tokio::time::interval(POLL_INTERVAL);
        loop {
            tokio::select! {
                () = self.lines.closed() => return,
                Some(ended) = reading.join_next() => {
                    if let Ok((id, progress)) = ended {
                        open.remove(&id);
                        seen.insert(id, progress);
                    }
                }
                _ = look.tick() => {
                    let Ok(processes) = processes_of(&self.api, &name).await else {
                        return;
                    };
                    if processes.is_empty() && self.is_removed(&name).await && open.is_empty() {
                        return;
                    }
                    for (node, id) in processes {
                        if !open.insert(id.clone()) {
                            continue;
                        }
                        let mut which = which.clone();
                        // A process that is new is shown from its start.
                        if !is_first_look && !seen.contains_key(&id) {
                            which.tail = None;
                        }
                        let mut progress = seen.get(&id).cloned().unwrap_or_default();
                        let merger = self.clone();
                        reading.spawn(async move {
                            merger.copy(&node, &id, &which, &mut progress).await;
                            (id, progress)
                        });
                    }
                    is_first_look = false;
                }
            }
        }
    }

    async fn is_removed(&self, name: &ServiceName) -> bool {
        let name = name.clone();
        let service = self
            .api
            .state
            .query(move |cluster| cluster.service(&name).is_none());
        service.await.unwrap_or(true)
    }

    /// Copies the lines of one process from where its progress is. An error becomes a line, once.
    async fn copy(
        &self,
        node: &NodeName,
        id: &ProcessId,
        which: &LogQuery,
        progress: &mut Progress,
    ) {
        let query = progress.rest(which).for_agent(&self.api);
        match agent::request(&self.api, node, id, &query).await {
            Ok(answer) => {
                progress.error = None;
                self.copy_lines(id, answer, progress).await;
                progress.has_begun = true;
            }
            // Its node has not begun with it.
            Err(error) if which.follow && error.is_not_found() => {}
            Err(error) => self.show(id, &error, progress).await,
        }
    }

    async fn show(&self, id: &ProcessId, error: &OutputError, progress: &mut Progress) {
        let text = format!("[tucano] no logs: {error}");
        if progress.error.as_ref() == Some(&text) {
            return;
        }
        self.note(id, &text).await;
        progress.error = Some(text);
    }

    /// Sends a line of the controller's own.
    pub(super) async fn note(&self, id: &ProcessId, text: &str) {
        let line = OwnedLine {
            time: None,
            stream: None,
            is_complete: true,
            text: text.as_bytes().to_vec(),
        };
        let line = LineWriter::new(self.form, id, usize::MAX).write(line);
        self.send(line).await;
    }

    async fn copy_lines(&self, id: &ProcessId, answer: Answer, progress: &mut Progress) {
        let max = self.api.config.current().limits.log_line_bytes.0;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut writer = LineWriter::new(self.form, id, max);
        let mut is_copied = progress.skip_copied();
        let mut batches = answer.lines();
        loop {
            let batch = tokio::select! {
                () = self.lines.closed() => return,
                batch = batches.next() => batch,
            };
            let Some(batch) = batch else {
                break;
            };
            for line in batch {
                if is_copied(&line) {
                    continue;
                }
                progress.note(&line);
                if !self.send(writer.write(line)).await {
                    return;
                }
            }
        }
        self.send(writer.finish()).await;
    }

    /// Returns false if the client has disconnected.
    async fn send(&self, text: Bytes) -> bool {
        text.is_empty() || self.lines.send(text).await.is_ok()
    }
}

#[cfg(test)]
mod tests;
