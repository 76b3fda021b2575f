//! The agents' counterpart: accepts reports, sends desired sets, restarts nodes.

mod apis;
mod assign;
mod certify;
mod client;
mod restart;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tucano_api::{
    agent::{DesiredSet, NodeReport, ReportAccepted},
    ids::{Generation, NodeName},
};
use tucano_planner::{Cluster, Event};

use self::assign::AssignmentTask;
pub use self::{
    certify::CertificateDenied,
    client::{AgentAddress, AgentClient, AgentError},
};
use crate::{
    config_mgr::ConfigManager,
    state_loop::{Refused, StateHandle},
};

/// Tracks each agent's address and desired set.
#[derive(Debug)]
pub struct AgentManager {
    config: Arc<ConfigManager>,
    state: StateHandle,
    client: AgentClient,
    assignments: Mutex<BTreeMap<NodeName, AssignmentTask>>,
    restarting: Mutex<BTreeSet<NodeName>>,
}

/// Why a report was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The topology has no such worker.
    #[error(
        "{node} is not a worker of the topology: add it to ctl.toml ([[topology]] with kind = \"worker\" and ip = \"{ip}\") and reload, or set name or ip in agent.toml to one that is there"
    )]
    UnknownNode {
        /// The name or address that it claims.
        node: String,
        /// Its address.
        ip: std::net::IpAddr,
    },
    /// The sender does not answer at its node's address.
    #[error(
        "the report for {node} was refused: it is not from the agent at {address}: {why}. The controller must be able to connect to the agent there: check firewalls, and that each machine has its own name and ip in agent.toml"
    )]
    Unconfirmed {
        /// The worker.
        node: NodeName,
        /// The expected address of its agent.
        address: SocketAddr,
        /// The outcome of the connection attempt.
        why: String,
    },
    /// Another agent of this node has started later and is alive.
    #[error(
        "another agent reports for {node} and has started later than this one: stop one of them, or give it another name and ip in its agent.toml"
    )]
    Superseded {
        /// The worker.
        node: NodeName,
    },
    /// The controller is shutting down.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl AgentManager {
    /// Without any agent.
    pub fn new(config: Arc<ConfigManager>, state: StateHandle, client: AgentClient) -> Self {
        Self {
            config,
            state,
            client,
            assignments: Mutex::default(),
            restarting: Mutex::default(),
        }
    }

    /// Feeds a report into the cluster's state.
    ///
    /// # Errors
    /// It is from an unknown node, or not from its node's current agent.
    pub async fn report(&self, report: NodeReport) -> Result<ReportAccepted, ReportError> {
        let config = self.config.current();
        let worker = config
            .topology
            .worker(report.node.as_ref(), report.ip)
            .ok_or_else(|| ReportError::UnknownNode {
                node: report
                    .node
                    .as_ref()
                    .map_or_else(|| report.ip.to_string(), ToString::to_string),
                ip: report.ip,
            })?;
        let (node, seen, agent) = (
            worker.name.clone(),
            report.generation,
            report.agent_id.clone(),
        );
        let kept_from = report.apis.clone();
        let address = SocketAddr::new(worker.ip, report.agent_port);
        let address = self.confirm(&node, &agent, address).await?;
        self.state
            .observe(Event::NodeReported {
                node: node.clone(),
                report: Box::new(report),
            })
            .await?;
        self.check_not_superseded(&node, &agent).await?;
        let generation = self.with_assignment(&node, |assignment| {
            assignment.confirmed_at(agent, address);
            assignment.reported_generation(seen);
            assignment.generation()
        });
        Ok(ReportAccepted {
            node,
            generation: generation.unwrap_or(seen),
            lease: config.planner.lease,
            apis: apis::if_changed(&config, kept_from.as_deref(), |worker| {
                self.address(worker).map(|address| address.socket)
            }),
        })
    }

    /// Connects to the node's address, once per agent, to confirm that this report comes from there: a copy of an agent's
    /// configuration must not suffice to report for its node, and a node that cannot receive desired sets is not alive.
    async fn confirm(
        &self,
        node: &NodeName,
        agent: &str,
        address: SocketAddr,
    ) -> Result<AgentAddress, ReportError> {
        if let Some(known) =
            self.with_assignment(node, |assignment| assignment.reaches(agent, address))
        {
            return Ok(known);
        }
        let unconfirmed = |why: String| ReportError::Unconfirmed {
            node: node.clone(),
            address,
            why,
        };
        let answer = self.client.probe(address).await;
        let (address, identity) = answer.map_err(|error| unconfirmed(error.to_string()))?;
        if identity.agent_id == agent {
            return Ok(address);
        }
        Err(unconfirmed("another agent answers there".to_owned()))
    }

    /// Checks that the planner attributed the report to the node's current agent.
    async fn check_not_superseded(&self, node: &NodeName, agent: &str) -> Result<(), ReportError> {
        let (name, agent) = (node.clone(), agent.to_owned());
        let is_superseded = move |cluster: &Cluster| cluster.is_superseded(&name, &agent);
        if self.state.query(is_superseded).await? {
            return Err(ReportError::Superseded { node: node.clone() });
        }
        Ok(())
    }

    /// Sends a desired set to its node, as soon as the node's address is known. Does not block.
    pub fn assign(&self, set: DesiredSet) {
        let node = set.node.clone();
        self.with_assignment(&node, |assignment| assignment.assign(set));
    }

    /// Address of a node's agent, if it has reported since the controller started.
    pub fn address(&self, node: &NodeName) -> Option<AgentAddress> {
        self.lock().get(node)?.address()
    }

    /// Addresses of all agents; empty if there are more than `most`.
    pub fn addresses(&self, most: usize) -> Vec<AgentAddress> {
        let addresses: Vec<_> = self
            .lock()
            .values()
            .filter_map(AssignmentTask::address)
            .collect();
        if addresses.len() > most {
            return Vec::new();
        }
        addresses
    }

    /// The newest generation assigned to a node since the controller started.
    pub fn assigned(&self, node: &NodeName) -> Option<Generation> {
        self.lock().get(node)?.generation()
    }

    /// The client for requests to agents.
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    fn with_assignment<T>(&self, node: &NodeName, act: impl FnOnce(&mut AssignmentTask) -> T) -> T {
        let mut assignments = self.lock();
        let assignment = assignments
            .entry(node.clone())
            .or_insert_with(|| AssignmentTask::start(node.clone(), self.client.clone()));
        act(assignment)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, AssignmentTask>> {
        self.assignments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
