//! Starts the steps of the plan, each in a task of its own.

use std::{sync::Arc, time::Duration};

use tucano_api::{
    agent::{DesiredProcess, Exit, VolumeInstance},
    ids::{Digest, ProcessId},
};

use super::{
    Node,
    events::{Event, EventSender},
    lifecycle::{Actual, Phase, Step},
    process::Process,
    state::Record,
    task::Runner,
};
use crate::clock::timestamp;

impl<N: Node> Runner<N> {
    /// Starts a step; its result arrives as an event.
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
        process.explain(step, wanted);
        process.actual.begin(step, now);
        match step {
            Step::Pull => self.pull(id),
            Step::Start => self.launch(id),
            Step::Resize => self.resize(id),
            Step::Terminate => self.terminate(id),
            Step::Kill => self.kill(id),
            Step::Remove => self.remove(id),
        }
    }

    fn pull(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (machine, events) = (Arc::clone(&self.machine), self.events(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let wanted = process.actual.process.clone();
        let task = tokio::spawn(async move {
            let event = match machine.pull(&wanted).await {
                Ok(images) => Event::Pulled(images),
                Err(reason) => Event::Failed(reason),
            };
            events.send(event).await;
        });
        process.begin_attempt(attempt, task.abort_handle());
    }

    fn launch(&mut self, id: &ProcessId) {
        let machine = Arc::clone(&self.machine);
        let node = self
            .node
            .clone()
            .unwrap_or_else(|| self.fallback_name.clone());
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let leased = process.lease(&*machine);
        let (record, images) = (process.record(), process.images.clone());
        let events = self.events(id, self.attempt(id));
        // Never aborted: only its result tells whether there is a container.
        tokio::spawn(async move {
            let launched = match (leased, images) {
                (Err(exhausted), _) => Err(exhausted.to_string()),
                (_, None) => Err("its image is gone".to_owned()),
                (_, Some(images)) => machine.launch(&record, &images, &node).await,
            };
            let event = launched.map_or_else(Event::Failed, Event::Started);
            events.send(event).await;
        });
    }

    fn resize(&mut self, id: &ProcessId) {
        let desired = self.desired.processes.as_ref();
        let Some(desired) = desired.and_then(|all| all.get(id)).cloned() else {
            return;
        };
        let (machine, events) = (Arc::clone(&self.machine), self.events(id, self.attempt(id)));
        // Never aborted: only its result tells which limits the container has.
        tokio::spawn(async move {
            let event = match machine.resize(&desired).await {
                Ok(()) => Event::Resized(Box::new(desired)),
                Err(reason) => Event::NotResized(Box::new(desired), reason),
            };
            events.send(event).await;
        });
    }

    /// Tries the probe of `desired` on a running process, beside the present one.
    pub(super) fn try_probe(&mut self, desired: &DesiredProcess) {
        let id = &desired.id;
        let events = self.events(id, self.attempt(id));
        let machine = Arc::clone(&self.machine);
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let record = Record {
            process: desired.clone(),
            ..process.record()
        };
        let trial = async move { machine.try_probe(&record, events).await };
        process.set_probe_trial(desired.clone(), tokio::spawn(trial).abort_handle());
    }

    fn terminate(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get(id).filter(|process| process.is_launched) else {
            return;
        };
        let signal = process.stop_signal();
        let (machine, id) = (Arc::clone(&self.machine), id.clone());
        tokio::spawn(async move {
            if let Err(error) = machine.signal(&id, signal).await {
                tracing::warn!(%id, %error, "cannot send the stop signal; the process will be killed");
            }
        });
    }

    pub(super) fn kill(&mut self, id: &ProcessId) {
        if !self
            .processes
            .get(id)
            .is_some_and(|process| process.is_launched)
        {
            return;
        }
        let (machine, events) = (Arc::clone(&self.machine), self.events(id, self.attempt(id)));
        tokio::spawn(async move {
            if let Err(reason) = machine.kill(&events.id).await {
                events.send(Event::NotKilled(reason)).await;
            }
        });
    }

    fn remove(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (machine, events) = (Arc::clone(&self.machine), self.events(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        process.end_attempt(attempt);
        let record = process.record();
        tokio::spawn(async move {
            let event = match machine.remove(&record).await {
                Ok(()) => Event::Removed,
                Err(reason) => Event::NotRemoved(reason),
            };
            events.send(event).await;
        });
    }

    /// Starts the tasks of a running process: its probe, the measurement of its disk usage, and the wait for its end.
    pub(super) fn watch(&mut self, id: &ProcessId) {
        self.probe(id);
        let events = self.events(id, self.attempt(id));
        let machine = &self.machine;
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        if !matches!(process.actual.phase, Phase::Running { .. }) {
            return;
        }
        let (measurer, sender) = (Arc::clone(machine), events.clone());
        process.spawn(async move { measurer.measure_disk(sender).await });
        process.spawn(wait(Arc::clone(machine), process.record(), events));
    }

    /// Starts the probe of a running process, in place of an earlier one.
    pub(super) fn probe(&mut self, id: &ProcessId) {
        let events = self.events(id, self.attempt(id));
        let machine = Arc::clone(&self.machine);
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let Phase::Running { health, .. } = process.actual.phase else {
            return;
        };
        let record = process.record();
        let probe = async move { machine.probe(&record, health, events).await };
        process.set_probe(tokio::spawn(probe).abort_handle());
    }

    /// Removes volumes that are to be removed and that no process has, and unmounts unused ones.
    pub(super) fn tidy_volumes(&self) {
        let removed = self.removable_volumes();
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move { machine.tidy_volumes(&removed).await });
    }

    fn removable_volumes(&self) -> Vec<VolumeInstance> {
        if !self.desired.starts_allowed {
            return Vec::new();
        }
        let has = |process: &DesiredProcess, removed: &VolumeInstance| {
            let mut own = process.volumes.iter();
            own.any(|it| it.volume.id == removed.id)
        };
        let actual = self.processes.values();
        let actual = actual.map(|process| &process.actual.process);
        let desired = self.desired.processes.iter().flatten();
        let all = actual.chain(desired.map(|(_, process)| process));
        let all: Vec<_> = all.collect();
        let removed = self.desired.removed_volumes.iter();
        let removed = removed.filter(|removed| !all.iter().any(|process| has(process, removed)));
        removed.cloned().collect()
    }

    /// Removes images that no process uses, and after the last process what all of them shared.
    pub(super) fn collect_garbage(&self) {
        self.tidy_volumes();
        let machine = Arc::clone(&self.machine);
        let is_idle = self.processes.is_empty();
        let in_use = self.images_in_use();
        tokio::spawn(async move {
            if is_idle && let Err(error) = machine.remove_shared().await {
                tracing::warn!(%error, "cannot remove the processes' parent cgroup");
            }
            if let Err(error) = machine.remove_unused_images(&in_use).await {
                tracing::warn!(%error, "cannot remove unused images");
            }
        });
    }

    /// Images of existing and of desired processes.
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
            .flat_map(DesiredProcess::images)
            .cloned()
            .collect();
        images.sort();
        images.dedup();
        images
    }

    fn attempt(&self, id: &ProcessId) -> u64 {
        self.processes.get(id).map_or(0, |process| process.attempt)
    }

    fn events(&self, id: &ProcessId, attempt: u64) -> EventSender {
        EventSender {
            id: id.clone(),
            attempt,
            messages: self.to_self.clone(),
        }
    }
}

async fn wait<N: Node>(machine: Arc<N>, record: Record, events: EventSender) {
    let exit = machine.wait(&record).await.unwrap_or_else(|error| {
        tracing::warn!(id = %events.id, %error, "cannot determine how the process ended");
        Exit::unknown(timestamp())
    });
    let last_lines = match record.process.run {
        Some(_) => machine.last_lines(&record.process.id).await,
        None => Vec::new(),
    };
    events.send(Event::Ended(exit, last_lines)).await;
}
