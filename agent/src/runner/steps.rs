//! Steps of the plan, each begun here and carried out by a task of its own.

use std::{sync::Arc, time::Duration};

use tucano_api::{
    agent::Exit,
    ids::{Digest, ProcessId},
};
use tucano_oci_runtime::supervisor::Running;

use super::{
    disk,
    events::{Event, Teller},
    execute::Executor,
    lifecycle::{Actual, Health, Phase, Step},
    probe::{Finding, Prober},
    process::Process,
    state::Record,
    task::Runner,
};
use crate::clock::timestamp;

impl Runner {
    /// Begins a step; its end is told as an event.
    pub(super) fn begin(&mut self, id: &ProcessId, step: Step, now: Duration) {
        if !self.processes.contains_key(id) {
            let Some(desired) = self.desired.processes.as_ref().and_then(|all| all.get(id)) else {
                return;
            };
            let process = Process::new(Actual::new(desired.clone()));
            self.processes.insert(id.clone(), process);
        }
        let wanted = self
            .processes
            .get(id)
            .is_some_and(|process| self.desired.wants(&process.actual));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        tracing::debug!(%id, ?step, "step");
        process.prepare(step, wanted);
        process.actual.begin(step, now);
        match step {
            Step::Pull => self.pull(id),
            Step::Start => self.start(id),
            Step::Terminate => self.terminate(id),
            Step::Kill => self.kill(id),
            Step::Remove => self.remove(id),
        }
    }

    fn pull(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (executor, tell) = (Arc::clone(&self.executor), self.teller(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let image = process.actual.process.image.clone();
        let task = tokio::spawn(async move {
            let event = match executor.images.ensure(&image).await {
                Ok(image) => Event::Pulled(image),
                Err(error) => Event::Failed(error.to_string()),
            };
            tell.tell(event).await;
        });
        process.begin_attempt(attempt, task.abort_handle());
    }

    fn start(&mut self, id: &ProcessId) {
        let executor = Arc::clone(&self.executor);
        let node = self
            .node
            .clone()
            .unwrap_or_else(|| self.fallback_name.clone());
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let leased = process.lease.map_or_else(|| executor.network.lease(), Ok);
        process.lease = leased.ok();
        let (record, image) = (process.record(), process.image.clone());
        let tell = self.teller(id, self.attempt(id));
        // Not aborted by anything: its end tells whether there is a container.
        tokio::spawn(async move {
            let started = match (leased, image) {
                (Err(exhausted), _) => Err(exhausted.to_string()),
                (_, None) => Err("its image is gone".to_owned()),
                (_, Some(image)) => executor
                    .start(&record, &image, &node)
                    .await
                    .map_err(|error| error.to_string()),
            };
            tell.tell(match started {
                Ok(running) => Event::Started(running),
                Err(reason) => Event::Failed(reason),
            })
            .await;
        });
    }

    fn terminate(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let (Some(running), signal) = (process.running.clone(), process.stop_signal()) else {
            return;
        };
        let (executor, id) = (Arc::clone(&self.executor), id.clone());
        tokio::spawn(async move {
            if let Err(error) = executor.signal(running, signal).await {
                tracing::warn!(%id, %error, "cannot ask the process to end; it will be killed");
            }
        });
    }

    pub(super) fn kill(&mut self, id: &ProcessId) {
        let Some(running) = self
            .processes
            .get(id)
            .and_then(|process| process.running.clone())
        else {
            return;
        };
        let (executor, tell) = (
            Arc::clone(&self.executor),
            self.teller(id, self.attempt(id)),
        );
        tokio::spawn(async move {
            if let Err(error) = executor.kill(&tell.id, running).await {
                tell.tell(Event::NotKilled(error.to_string())).await;
            }
        });
    }

    fn remove(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (executor, tell) = (Arc::clone(&self.executor), self.teller(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        process.end_attempt(attempt);
        let record = process.record();
        tokio::spawn(async move {
            let event = match executor.remove(&record).await {
                Ok(()) => Event::Removed,
                Err(error) => Event::NotRemoved(error.to_string()),
            };
            tell.tell(event).await;
        });
    }

    /// Watches and probes a process that runs.
    pub(super) fn attend(&mut self, id: &ProcessId) {
        let tell = self.teller(id, self.attempt(id));
        let executor = Arc::clone(&self.executor);
        let client = self.probe_client.clone();
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let (Some(running), Phase::Running { health, .. }) =
            (process.running.clone(), process.actual.phase)
        else {
            return;
        };
        if let Some(prober) = process.prober(&executor, client) {
            let task = tokio::spawn(probe(prober, health, tell.clone()));
            process.add_task(task.abort_handle());
        }
        let record = process.record();
        let watched = disk::watch(Arc::clone(&executor), tell.clone());
        process.add_task(tokio::spawn(watched).abort_handle());
        let task = tokio::spawn(watch_end(executor, record, running, tell));
        process.add_task(task.abort_handle());
    }

    /// After the last process, nothing that all shared remains; and images that nothing uses any more are removed.
    pub(super) fn tidy(&self) {
        let executor = Arc::clone(&self.executor);
        let unused = self.processes.is_empty();
        let in_use = self.images_in_use();
        tokio::spawn(async move {
            if unused && let Err(error) = executor.remove_shared().await {
                tracing::warn!(%error, "cannot remove the processes' parent cgroup");
            }
            if let Err(error) = executor.images.remove_unused(&in_use).await {
                tracing::warn!(%error, "cannot remove unused images");
            }
        });
    }

    /// Images of processes that exist or are to exist.
    fn images_in_use(&self) -> Vec<Digest> {
        let existing = self
            .processes
            .values()
            .map(|process| &process.actual.process);
        let desired = self
            .desired
            .processes
            .iter()
            .flatten()
            .map(|(_, desired)| desired);
        let mut images: Vec<_> = existing
            .chain(desired)
            .map(|process| process.image.clone())
            .collect();
        images.sort();
        images.dedup();
        images
    }

    fn attempt(&self, id: &ProcessId) -> u64 {
        self.processes.get(id).map_or(0, |process| process.attempt)
    }

    pub(super) fn teller(&self, id: &ProcessId, attempt: u64) -> Teller {
        Teller {
            id: id.clone(),
            attempt,
            messages: self.to_self.clone(),
        }
    }
}

async fn probe(prober: Prober, from: Health, tell: Teller) {
    let told = |finding: Finding| {
        let tell = tell.clone();
        async move { tell.tell(Event::Probed(finding)).await }
    };
    prober.run(from, told).await;
}

async fn watch_end(executor: Arc<Executor>, record: Record, running: Arc<Running>, tell: Teller) {
    let exit = match executor.watch(&record, &running).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::warn!(id = %tell.id, %error, "cannot tell how the process ended");
            Exit {
                code: None,
                signal: None,
                oom_killed: false,
                disk_exceeded: false,
                at: timestamp(),
            }
        }
    };
    tell.tell(Event::Ended(exit)).await;
}
