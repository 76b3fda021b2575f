use std::collections::BTreeSet;

use tucano_api::{
    agent::{DesiredSet, VolumeInstance},
    ids::{NodeName, ProcessId, SecretName, ServiceName, VolumeId},
    state::Alert,
};

use crate::model::NamesUpdate;

/// Everything that the present step has touched. Records are written from the state at the end of the step, so that
/// each key is written once, with its last value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Records to write or delete.
    pub(crate) services: BTreeSet<ServiceName>,
    pub(crate) processes: BTreeSet<ProcessId>,
    pub(crate) nodes: BTreeSet<NodeName>,
    pub(crate) secrets: BTreeSet<SecretName>,
    pub(crate) volumes: BTreeSet<VolumeInstance>,
    pub(crate) backups: BTreeSet<VolumeId>,
    pub(crate) jobs: BTreeSet<ServiceName>,
    pub(crate) runs: BTreeSet<(ServiceName, u64)>,
    pub(crate) counters: bool,
    /// Workers whose set of processes has changed: their generation is incremented.
    pub(crate) reassign: BTreeSet<NodeName>,
    /// Workers whose agent does not hold the present set.
    pub(crate) resend: BTreeSet<NodeName>,
    /// Empty sets for workers that have left the topology.
    pub(crate) final_sets: Vec<DesiredSet>,
    /// Services that may have more revisions than are kept.
    pub(crate) prune: BTreeSet<ServiceName>,
    /// Services to reconcile.
    pub(crate) reconcile: BTreeSet<ServiceName>,
    /// Services whose route may have changed.
    pub(crate) reroute: BTreeSet<ServiceName>,
    /// Services that may lack an address.
    pub(crate) unaddressed: BTreeSet<ServiceName>,
    /// Services whose entry among the names may have changed.
    pub(crate) renamed: BTreeSet<ServiceName>,
    /// Workers whose processes may need other services, beside those to reassign.
    pub(crate) needy: BTreeSet<NodeName>,
    /// What is to be published of the names.
    pub(crate) names: NamesUpdate,
    /// Whether the routes are to be published.
    pub(crate) publish: bool,
    /// Whether workers may have come or gone, with the volumes on them.
    pub(crate) volume_nodes: bool,
    /// Whether memory may have become available.
    pub(crate) capacity: bool,
    pub(crate) restarts: Vec<(NodeName, u32)>,
    pub(crate) alerts: Vec<Alert>,
}
