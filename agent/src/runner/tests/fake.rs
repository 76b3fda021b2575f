//! A [`Node`] that records every call, and whose results the test decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, mpsc};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit, VolumeInstance},
    ids::{Digest, NodeName, ProcessId},
    service::ServiceConfig,
    units::Timestamp,
};

use crate::runner::{
    Event, EventSender, Node,
    images::{ProcessImages, Unpacked},
    lifecycle::Health,
    network::{Exhausted, FurtherPorts, Lease},
    probe::Finding,
    state::Record,
};

/// A call of the runner, with the process or image that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Pull(Digest),
    Launch(ProcessId),
    Resize(ProcessId, u64),
    TryProbe(ProcessId),
    Signal(ProcessId, i32),
    Kill(ProcessId),
    Remove(ProcessId),
    RemoveShared,
    RemoveVolume(String),
    StoreDesired(u64),
}

/// The recording fake.
#[derive(Debug)]
pub(super) struct FakeNode {
    state: Mutex<State>,
    calls: mpsc::UnboundedSender<Call>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    failing: BTreeSet<&'static str>,
    containers: BTreeMap<ProcessId, i32>,
    probes: BTreeMap<ProcessId, EventSender>,
    probed: BTreeMap<ProcessId, Record>,
    trials: BTreeMap<ProcessId, (Record, EventSender)>,
    disks: BTreeMap<ProcessId, EventSender>,
    records: BTreeMap<ProcessId, Record>,
    exits: BTreeMap<ProcessId, Exit>,
    leases: u16,
}

impl FakeNode {
    /// The node, and the calls in their order.
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Call>) {
        let (calls, recorded) = mpsc::unbounded_channel();
        let node = Self {
            state: Mutex::default(),
            calls,
            changed: Notify::new(),
        };
        (Arc::new(node), recorded)
    }

    /// Makes every call of this name fail, or succeed again.
    pub(super) fn set_failing(&self, call: &'static str, fails: bool) {
        let mut state = self.state();
        if fails {
            state.failing.insert(call);
        } else {
            state.failing.remove(call);
        }
    }

    /// Adds a container that an earlier agent started.
    pub(super) fn add_container(&self, id: &ProcessId) {
        self.state().containers.insert(id.clone(), 1);
    }

    /// Ends a container with this exit code.
    pub(super) fn end(&self, id: &ProcessId, code: i32) {
        self.exit(id, Some(code), None);
    }

    /// Ids of running containers.
    pub(super) fn running(&self) -> Vec<ProcessId> {
        self.state().containers.keys().cloned().collect()
    }

    /// The stored record of a process.
    pub(super) fn record(&self, id: &ProcessId) -> Option<Record> {
        self.state().records.get(id).cloned()
    }

    /// Sends the result of a probe.
    pub(super) async fn probed(&self, id: &ProcessId, health: Health) {
        let sender = self.sender(id, |state| &state.probes).await;
        let reason = (health != Health::Healthy).then(|| "no answer".to_owned());
        sender.send(Event::Probed(Finding { health, reason })).await;
    }

    /// The record that a process was last probed by.
    pub(super) fn probed_by(&self, id: &ProcessId) -> Option<Record> {
        self.state().probed.get(id).cloned()
    }

    /// Sends the result of the trial of a probe.
    pub(super) async fn trial_ends(&self, id: &ProcessId, result: Result<(), &str>) {
        let trial = self.state().trials.get(id).cloned();
        let (record, sender) = trial.unwrap();
        let event = match result {
            Ok(()) => Event::ProbeAnswered(Box::new(record.process)),
            Err(reason) => Event::ProbeFailed(reason.to_owned()),
        };
        sender.send(event).await;
    }

    /// Sends a measured disk usage in bytes.
    pub(super) async fn disk_used(&self, id: &ProcessId, bytes: u64) {
        let sender = self.sender(id, |state| &state.disks).await;
        sender.send(Event::DiskUsed(bytes)).await;
    }

    async fn sender(
        &self,
        id: &ProcessId,
        of: impl Fn(&State) -> &BTreeMap<ProcessId, EventSender>,
    ) -> EventSender {
        loop {
            let changed = self.changed.notified();
            if let Some(sender) = of(&self.state()).get(id) {
                return sender.clone();
            }
            changed.await;
        }
    }

    fn exit(&self, id: &ProcessId, code: Option<i32>, signal: Option<i32>) {
        let mut state = self.state();
        if state.containers.remove(id).is_some() {
            let exit = Exit {
                code,
                signal,
                oom_killed: false,
                disk_exceeded: false,
                memory_peak: None,
                at: Timestamp(1),
            };
            state.exits.insert(id.clone(), exit);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn call(&self, name: &'static str, call: Call) -> Result<(), String> {
        // The test may have dropped the receiver at its end.
        self.calls.send(call).unwrap_or_default();
        if self.state().failing.contains(name) {
            return Err(format!("{name} fails"));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Node for FakeNode {
    async fn last_lines(&self, id: &ProcessId) -> Vec<String> {
        vec![format!("{id} has ended")]
    }

    async fn pull(&self, process: &DesiredProcess) -> Result<ProcessImages, String> {
        self.call("pull", Call::Pull(process.image.clone()))?;
        Ok(ProcessImages {
            own: Arc::new(Unpacked::empty()),
            mounted: Vec::new(),
        })
    }

    fn lease(&self, _: &ServiceConfig) -> Result<(Lease, FurtherPorts), Exhausted> {
        let mut state = self.state();
        state.leases += 1;
        let lease = Lease {
            ip: Ipv4Addr::new(172, 31, 0, 1 + state.leases as u8),
            node_port: 20_000 + state.leases,
            ids_base: 0x7000_0000 + u32::from(state.leases) * 0x1_0000,
        };
        Ok((lease, FurtherPorts::new()))
    }

    async fn launch(
        &self,
        record: &Record,
        _: &ProcessImages,
        _: &NodeName,
    ) -> Result<i32, String> {
        let id = &record.process.id;
        self.call("launch", Call::Launch(id.clone()))?;
        let mut state = self.state();
        let earlier = state.containers.insert(id.clone(), 1);
        assert_eq!(earlier, None, "{id} was started twice");
        Ok(1)
    }

    async fn wait(&self, record: &Record) -> Result<Exit, String> {
        let id = &record.process.id;
        loop {
            let changed = self.changed.notified();
            if let Some(exit) = self.state().exits.remove(id) {
                return Ok(exit);
            }
            changed.await;
        }
    }

    async fn probe(&self, record: &Record, _: Health, events: EventSender) {
        let id = record.process.id.clone();
        self.state().probed.insert(id.clone(), record.clone());
        self.state().probes.insert(id, events);
        self.changed.notify_waiters();
        std::future::pending().await
    }

    async fn try_probe(&self, record: &Record, events: EventSender) {
        let id = record.process.id.clone();
        self.state()
            .trials
            .insert(id.clone(), (record.clone(), events));
        self.call("try_probe", Call::TryProbe(id)).unwrap();
        self.changed.notify_waiters();
        std::future::pending().await
    }

    async fn resize(&self, process: &DesiredProcess) -> Result<(), String> {
        let (id, memory) = (process.id.clone(), process.config.memory.0);
        self.call("resize", Call::Resize(id, memory))
    }

    async fn measure_disk(&self, events: EventSender) {
        let id = events.id().clone();
        self.state().disks.insert(id, events);
        self.changed.notify_waiters();
        std::future::pending().await
    }

    async fn signal(&self, id: &ProcessId, signal: i32) -> Result<(), String> {
        self.call("signal", Call::Signal(id.clone(), signal))?;
        self.exit(id, None, Some(signal));
        Ok(())
    }

    async fn kill(&self, id: &ProcessId) -> Result<(), String> {
        self.call("kill", Call::Kill(id.clone()))?;
        self.exit(id, None, Some(9));
        Ok(())
    }

    async fn remove(&self, record: &Record) -> Result<(), String> {
        let id = &record.process.id;
        self.call("remove", Call::Remove(id.clone()))?;
        assert!(
            !self.running().contains(id),
            "{id} was removed while running"
        );
        Ok(())
    }

    async fn remove_shared(&self) -> Result<(), String> {
        self.call("remove_shared", Call::RemoveShared)
    }

    async fn remove_unused_images(&self, _: &[Digest]) -> Result<(), String> {
        Ok(())
    }

    async fn tidy_volumes(&self, removed: &[VolumeInstance]) {
        for volume in removed {
            let call = Call::RemoveVolume(volume.id.to_string());
            self.call("remove_volume", call).unwrap();
        }
    }

    fn copy_volumes(&self, _: &DesiredSet) {}

    async fn store_desired(&self, set: &DesiredSet) -> Result<(), String> {
        self.call("store_desired", Call::StoreDesired(set.generation.0))
    }

    async fn store_record(&self, record: &Record) -> Result<(), String> {
        let id = record.process.id.clone();
        self.state().records.insert(id, record.clone());
        Ok(())
    }

    fn relaxed(&self, _: &ServiceConfig) -> Vec<String> {
        Vec::new()
    }
}
