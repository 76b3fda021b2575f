//! What the runner's steps do to the machine.

use std::fmt;

use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit, VolumeInstance},
    ids::{Digest, NodeName, ProcessId},
    service::ServiceConfig,
};

use super::{
    events::EventSender,
    images::ProcessImages,
    lifecycle::Health,
    network::{Exhausted, FurtherPorts, Lease},
    state::Record,
};

/// The machine that processes run on. Each method is safe to repeat: it clears away what an interrupted call left behind.
/// Errors are sentences for the report.
pub trait Node: fmt::Debug + Send + Sync + 'static {
    /// Fetches and unpacks the images of a process. Dropping the future aborts the fetch.
    fn pull(
        &self,
        process: &DesiredProcess,
    ) -> impl Future<Output = Result<ProcessImages, String>> + Send;

    /// Reserves an address, user ids, and for each of the service's ports a port of the node.
    fn lease(&self, config: &ServiceConfig) -> Result<(Lease, FurtherPorts), Exhausted>;

    /// Starts a container and forwards its ports; returns the pid of its first process. The record is stored before anything
    /// runs.
    fn launch(
        &self,
        record: &Record,
        images: &ProcessImages,
        node: &NodeName,
    ) -> impl Future<Output = Result<i32, String>> + Send;

    /// Waits for the container's end. On return its port is no longer forwarded and its cgroup is removed.
    fn wait(&self, record: &Record) -> impl Future<Output = Result<Exit, String>> + Send;

    /// Probes a running process, and sends each change of its health, until the future is dropped.
    fn probe(
        &self,
        record: &Record,
        from: Health,
        events: EventSender,
    ) -> impl Future<Output = ()> + Send;

    /// Probes a running process in the way of `record`, sends why that fails, and ends as soon as it has sent that it succeeds.
    fn try_probe(&self, record: &Record, events: EventSender) -> impl Future<Output = ()> + Send;

    /// The last lines that a process has written, as far as they can be read.
    fn last_lines(&self, id: &ProcessId) -> impl Future<Output = Vec<String>> + Send;

    /// Sets the limits of a running process to those of `process`.
    fn resize(&self, process: &DesiredProcess) -> impl Future<Output = Result<(), String>> + Send;

    /// Measures the disk usage of a running process, and sends each change, until the future is dropped.
    fn measure_disk(&self, events: EventSender) -> impl Future<Output = ()> + Send;

    /// Sends a signal to the container's first process.
    fn signal(
        &self,
        id: &ProcessId,
        signal: i32,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Kills every process of the container.
    fn kill(&self, id: &ProcessId) -> impl Future<Output = Result<(), String>> + Send;

    /// Removes a stopped process: cgroup, link, rules and directory.
    fn remove(&self, record: &Record) -> impl Future<Output = Result<(), String>> + Send;

    /// Removes what all processes share, if the node has none and none is starting.
    fn remove_shared(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Removes images that are neither in use nor were used recently.
    fn remove_unused_images(
        &self,
        in_use: &[Digest],
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Removes these volumes, which no process has, and unmounts unused ones.
    fn tidy_volumes(&self, removed: &[VolumeInstance]) -> impl Future<Output = ()> + Send;

    /// Begins to fill the volumes of a desired set that is stored, gives up the fills of earlier ones, and lets other workers read
    /// what it exports. Does not wait for any of that.
    fn copy_volumes(&self, set: &DesiredSet);

    /// Stores the desired set durably.
    fn store_desired(&self, set: &DesiredSet) -> impl Future<Output = Result<(), String>> + Send;

    /// Stores a process's record for the next agent.
    fn store_record(&self, record: &Record) -> impl Future<Output = Result<(), String>> + Send;

    /// The ways in which this node isolates processes of such a service less than usual.
    fn relaxed(&self, config: &ServiceConfig) -> Vec<String>;
}
