//! Queries: what the controller shows of the cluster, and what its other parts ask.

mod views;

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{DesiredProcess, DesiredSet},
    ids::{Digest, NodeName, ProcessId, SecretName, ServiceName, VolumeId},
    jobs::{JobView, Run},
    routes::ServiceRoute,
    secrets::{SecretUser, SecretVersion, SecretView},
    service::ServiceConfig,
    state::{Adoption, ConfiguredService, NodeView, ServiceView, State, VolumeView},
    volumes::Snapshot,
};

use crate::{
    actions, adoption, backups,
    cluster::Cluster,
    duplicates, holds, jobs, live_changes,
    model::{
        Configured, NamesUpdate, Platforms, Restoration, RevisionRecord, SecretRecord, Settings,
    },
    names, routes, rules, secrets, services,
    state::Node,
    volumes,
};

use views::{alive_node, configured, dead_node, node_view, of_revision};

impl Cluster {
    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// All routes, by service. They are not complete, and not to be published, until every worker has reported after
    /// the controller's start.
    pub fn routes(&self) -> Vec<ServiceRoute> {
        routes::all(&self.state)
    }

    /// Every service as the processes see it that need it, and what each node needs.
    pub fn names(&self) -> NamesUpdate {
        names::all(&self.state)
    }

    /// The newest run of a job's present revision, of its own command, that has succeeded or has not ended.
    pub fn run_of_revision(&self, name: &ServiceName) -> Option<u64> {
        jobs::requests::of_revision(&self.state, name)
    }

    /// The cluster as it would be if these services were configured, for what has to hold between them. Nothing of it is placed.
    #[must_use]
    pub fn with_configured(&self, services: &[Configured]) -> Self {
        let mut cluster = self.clone();
        services::configure_all(&mut cluster.state, services.to_vec());
        names::addresses::assign(&mut cluster.state);
        cluster
    }

    /// The services that a configuration names and that do not exist. A message for the user.
    pub fn unknown_services(&self, config: &ServiceConfig) -> Option<String> {
        names::checks::unknown(&self.state, config)
    }

    /// Why a configuration cannot be accepted beside the services that it names. A message for the user.
    pub fn names_obstacle(&self, config: &ServiceConfig) -> Option<String> {
        names::checks::obstacle(&self.state, config)
    }

    /// Why a service cannot be removed: others need it. A message for the user.
    pub fn removal_obstacle(&self, name: &ServiceName) -> Option<String> {
        names::checks::removal_obstacle(&self.state, name)
    }

    /// Everything that is desired on a worker. `None` for a worker that is not in the topology.
    pub fn desired_set(&self, name: &NodeName) -> Option<DesiredSet> {
        actions::desired_set(&self.state, name)
    }

    /// Whether another agent than this one counts for its worker.
    pub fn is_superseded(&self, node: &NodeName, agent: &str) -> bool {
        duplicates::is_superseded(&self.state, node, agent)
    }

    /// Why this configuration cannot be accepted beside the others: another service has the same host and path prefix.
    /// A message for the user.
    pub fn conflict(&self, config: &ServiceConfig) -> Option<String> {
        services::conflict(&self.state, config)
    }

    /// Why the running processes of a service cannot have the limits of this configuration: they use more. A message for the
    /// user.
    pub fn resize_obstacle(&self, config: &ServiceConfig, image: &Digest) -> Option<String> {
        live_changes::obstacle(&self.state, config, image)
    }

    /// Gives each secret of a configuration that has no version its newest one. Returns the secrets that do not exist.
    pub fn resolve_secrets(&self, config: &mut ServiceConfig) -> Vec<SecretName> {
        secrets::resolve(&self.state, config)
    }

    /// The number of the next version of a secret.
    pub fn next_secret_version(&self) -> u64 {
        secrets::next_version(&self.state)
    }

    /// Every secret, without its value.
    pub fn secrets(&self) -> Vec<SecretView> {
        secrets::show(&self.state)
    }

    /// The revisions that have a secret.
    pub fn secret_users(&self, name: &SecretName) -> Vec<SecretUser> {
        secrets::users(&self.state, name).collect()
    }

    /// A process whose revision has a secret.
    pub fn process_with_secret(&self, name: &SecretName) -> Option<ProcessId> {
        secrets::process_with(&self.state, name)
    }

    /// A secret and its encrypted values.
    pub fn secret(&self, name: &SecretName) -> Option<&SecretRecord> {
        self.state.secrets.get(name)
    }

    /// Every secret and its encrypted values.
    pub fn sealed_secrets(&self) -> impl Iterator<Item = &SecretRecord> {
        self.state.secrets.values()
    }

    /// Whether a process on this worker needs a version of a secret.
    pub fn needs_secret(&self, node: &NodeName, wanted: &SecretVersion) -> bool {
        secrets::is_needed(&self.state, node, wanted)
    }

    /// Every volume, ordered by id, also those that workers report and no record tells of.
    pub fn volumes(&self) -> Vec<VolumeView> {
        volumes::views(&self.state)
    }

    /// Whether there is a volume of this name that is not being removed.
    pub fn has_volume(&self, id: &VolumeId) -> bool {
        volumes::exists(&self.state, id)
    }

    /// Why a volume cannot be removed: a process has it, or its service needs it. A message for the user.
    pub fn volume_obstacle(&self, id: &VolumeId) -> Option<String> {
        volumes::obstacle(&self.state, id)
    }

    /// Why the volumes of a slot cannot be moved to a worker. A message for the user.
    pub fn move_obstacle(&self, id: &VolumeId, to: &NodeName) -> Option<String> {
        volumes::fills::obstacle(&self.state, id, to)
    }

    /// Why a volume cannot be backed up now. A message for the user.
    pub fn backup_obstacle(&self, id: &VolumeId) -> Option<String> {
        backups::obstacle(&self.state, id)
    }

    /// The backups of a volume that are known, oldest first.
    pub fn backups(&self, id: &VolumeId) -> Vec<Snapshot> {
        backups::snapshots(&self.state, id).to_vec()
    }

    /// Why a volume cannot be restored so. A message for the user.
    pub fn restore_obstacle(&self, restore: &Restoration) -> Option<String> {
        volumes::restores::obstacle(&self.state, restore)
    }

    /// Whether a worker reports a volume of this name that no record tells of.
    pub fn has_orphan(&self, id: &VolumeId, node: &NodeName) -> bool {
        volumes::orphans::named(&self.state, id, node).is_some()
    }

    /// Why such a volume cannot be removed from its worker. A message for the user.
    pub fn orphan_obstacle(&self, id: &VolumeId, node: &NodeName) -> Option<String> {
        volumes::orphans::obstacle(&self.state, id, node)
    }

    /// Bytes that are kept on a worker for slots whose volumes it has, beyond those that are reserved.
    pub fn claimed(&self, node: &NodeName) -> u64 {
        let index = self.state.node_index.get(node);
        index.map_or(0, |index| self.state.nodes[*index].claimed().memory)
    }

    /// Why a service of this configuration and image could never be placed as its rules say, with the present topology and
    /// the other services. A message for the user that begins with the key.
    pub fn placement_obstacle(
        &self,
        config: &ServiceConfig,
        platforms: &Platforms,
    ) -> Option<String> {
        rules::graph_obstacle(&self.state, config)
            .or_else(|| rules::never(&self.state, config, platforms))
            .or_else(|| rules::slot_obstacle(&self.state, config))
    }

    /// The manifests of an image by architecture, as the newest revision of a service that has it knows them.
    pub fn platforms(&self, name: &ServiceName, image: &Digest) -> Platforms {
        let service = self.state.services.get(name);
        let revisions = service
            .into_iter()
            .flat_map(|it| it.record.revisions.iter().rev());
        let mut same = revisions.filter(|it| it.image == *image);
        same.next()
            .map(|it| it.platforms.clone())
            .unwrap_or_default()
    }

    /// The architectures that workers have reported, with one worker of each.
    pub fn architectures(&self) -> BTreeMap<String, NodeName> {
        let nodes = self.state.nodes.iter().rev();
        let known = nodes.filter(|node| !node.architecture().is_empty());
        known
            .map(|node| (node.architecture().to_owned(), node.record.name.clone()))
            .collect()
    }

    /// The CPUs that are reserved on a worker, in thousandths, by desired processes and by those that still exist, and the
    /// ones that are kept for slots.
    pub fn reserved_millicpus(&self, node: &NodeName) -> u64 {
        let index = self.state.node_index.get(node);
        index.map_or(0, |index| {
            let node = &self.state.nodes[*index];
            node.reserved
                .plus(node.stopping())
                .plus(node.claimed())
                .millicpus
        })
    }

    /// Every job, ordered by name.
    pub fn jobs(&self) -> Vec<JobView> {
        jobs::views::jobs(&self.state)
    }

    /// A job, or `None` if there is none of this name.
    pub fn job(&self, name: &ServiceName) -> Option<JobView> {
        jobs::views::job(&self.state, name)
    }

    /// The runs of a job or service that are kept, the newest first.
    pub fn runs(&self, name: &ServiceName) -> Vec<Run> {
        jobs::views::runs(&self.state, name)
    }

    /// A run.
    pub fn run(&self, name: &ServiceName, number: u64) -> Option<Run> {
        self.state.jobs.run(name, number).cloned()
    }

    /// The number that the next run of a job or service gets.
    pub fn next_run(&self, name: &ServiceName) -> u64 {
        jobs::requests::next_number(&self.state, name)
    }

    /// Why no run of this command can be begun. A message for the user.
    pub fn run_obstacle(&self, name: &ServiceName, command: Option<&[String]>) -> Option<String> {
        jobs::requests::obstacle(&self.state, name, command)
    }

    /// The revision that was configured last, which may wait for its `before`.
    pub fn newest(&self, name: &ServiceName) -> Option<ConfiguredService> {
        let service = self.state.services.get(name)?;
        Some(of_revision(name, service.newest()))
    }

    /// The nodes on hold, and what can be adopted from them.
    pub fn adoption(&self) -> Adoption {
        adoption::show(&self.state)
    }

    /// Whether the agent of a node on hold has to tell which set it holds.
    pub fn wants_held_set(&self, node: &NodeName) -> bool {
        let index = self.state.node_index.get(node);
        index.is_some_and(|index| {
            let node = &self.state.nodes[*index];
            node.record.hold.is_some() && node.held_set.is_none()
        })
    }

    /// Bytes that are reserved on a worker, by desired processes and by those that still exist.
    pub fn reserved(&self, node: &NodeName) -> u64 {
        let index = self.state.node_index.get(node);
        index.map_or(0, |index| {
            let node = &self.state.nodes[*index];
            node.reserved.plus(node.stopping()).memory
        })
    }

    /// Whether a worker is silent as part of a mass silence: its processes stay placed and routed.
    pub fn is_silent(&self, node: &NodeName) -> bool {
        let index = self.state.node_index.get(node);
        index.is_some_and(|index| self.state.nodes[*index].silence.is_some())
    }

    /// Whether routes are not published because too many nodes are on hold.
    pub fn withholds_routes(&self) -> bool {
        holds::withhold_routes(&self.state)
    }

    /// The last report that was accepted from a worker: its agent and sequence number.
    pub fn last_report(&self, node: &NodeName) -> Option<(&str, u64)> {
        let node = &self.state.nodes[*self.state.node_index.get(node)?];
        let (agent, sequence) = node.last_sequence.as_ref()?;
        Some((agent, *sequence))
    }

    /// The four resources.
    pub fn state(&self) -> State {
        // `node_index` is ordered by name.
        let nodes = || {
            self.state
                .node_index
                .values()
                .map(|index| &self.state.nodes[*index])
        };
        State {
            alive_nodes: nodes()
                .filter_map(|node| alive_node(&self.state, node))
                .collect(),
            dead_nodes: nodes().filter_map(dead_node).collect(),
            configured_services: self.state.services.values().map(configured).collect(),
            active_services: self
                .state
                .services
                .values()
                .map(|s| self.active(s))
                .collect(),
        }
    }

    /// Every worker of the topology, in its order, without the controller's own node.
    pub fn nodes(&self) -> Vec<NodeView> {
        let nodes = self.state.nodes.iter();
        nodes.map(|node| node_view(&self.state, node)).collect()
    }

    /// A worker, or `None` if it is not in the topology.
    pub fn node(&self, name: &NodeName) -> Option<NodeView> {
        Some(node_view(
            &self.state,
            &self.state.nodes[*self.state.node_index.get(name)?],
        ))
    }

    /// Every service, ordered by name.
    pub fn services(&self) -> Vec<ServiceView> {
        self.state
            .services
            .values()
            .map(|service| self.service_view(service))
            .collect()
    }

    /// A service, or `None` if none of this name is configured.
    pub fn service(&self, name: &ServiceName) -> Option<ServiceView> {
        self.state
            .services
            .get(name)
            .map(|service| self.service_view(service))
    }

    /// The revisions of a service that are kept, each with the present concurrency, oldest first; none if no service of this name is configured.
    pub fn revisions(&self, name: &ServiceName) -> Vec<ConfiguredService> {
        let records = self.state.services.get(name).map(|it| &it.record.revisions);
        let records = records.into_iter().flatten();
        let service = self.state.services.get(name);
        let current = service.map(|it| it.current().config.concurrency);
        // One process on each worker has no number: then each revision has its own.
        let concurrency = current.filter(|concurrency| *concurrency > 0);
        let with_concurrency = |record: &RevisionRecord| {
            let mut revision = of_revision(name, record);
            if let Some(concurrency) = concurrency
                && !record.config.placement.everywhere
            {
                revision.config.concurrency = concurrency;
            }
            revision
        };
        records.map(with_concurrency).collect()
    }

    /// Where a process is placed, or where it still exists although it is no longer desired.
    pub fn node_of(&self, process: &ProcessId) -> Option<&NodeName> {
        let desired = self
            .state
            .process(process)
            .map(|process| &process.record.node);
        desired.or_else(|| {
            let exists = |node: &&Node| node.undesired.iter().any(|it| it.report.id == *process);
            self.state
                .nodes
                .iter()
                .find(exists)
                .map(|node| &node.record.name)
        })
    }

    /// Every process of a service that is desired or still exists, also after the service's removal, with its node;
    /// ordered by id within a node.
    pub fn existing(&self, name: &ServiceName) -> Vec<(NodeName, ProcessId)> {
        let mut existing = BTreeSet::new();
        for node in &self.state.nodes {
            let numbers = node.all_processes();
            let desired = self.state.processes(&numbers);
            let desired = desired.map(|p| (&p.record.service, &p.record.id));
            let undesired = node
                .undesired
                .iter()
                .map(|it| (&it.report.service, &it.report.id));
            for (_, id) in desired
                .chain(undesired)
                .filter(|(service, _)| *service == name)
            {
                existing.insert((node.record.name.clone(), id.clone()));
            }
        }
        existing.into_iter().collect()
    }

    /// Digests of all images that a kept revision or a process refers to.
    pub fn images_in_use(&self) -> BTreeSet<Digest> {
        // A revision is kept for as long as one of its processes is.
        let services = &self.state.services;
        // What runs on nodes on hold may be adopted.
        let held = self.state.nodes.iter().flat_map(|node| &node.held_set);
        let held = held.flatten().flat_map(DesiredProcess::images).cloned();
        let revisions = services
            .values()
            .flat_map(|service| service.record.revisions.iter().chain(&service.record.held));
        revisions
            .flat_map(|revision| {
                let own = std::iter::once(&revision.image).chain(revision.platforms.values());
                own.chain(revision.config.mounted_images())
            })
            .cloned()
            .chain(held)
            .collect()
    }
}
