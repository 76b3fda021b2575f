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
    /// No agent can have sent so many reports.
    #[error(
        "the report for {node} has the sequence number {sequence}, which no agent can have reached"
    )]
    AbsurdSequence {
        /// The worker.
        node: NodeName,
        /// The number.
        sequence: u64,
    },
    /// The controller is shutting down.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl ReportError {
    /// No worker of the topology has this name and address.
    pub fn unknown(node: Option<&NodeName>, ip: std::net::IpAddr) -> Self {
        Self::UnknownNode {
            node: node.map_or_else(|| ip.to_string(), ToString::to_string),
            ip,
        }
    }
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
            .ok_or_else(|| ReportError::unknown(report.node.as_ref(), report.ip))?;
        let (node, seen, agent) = (
            worker.name.clone(),
            report.generation,
            report.agent_id.clone(),
        );
        let (identity, sequence) = (report.identity.clone(), report.sequence);
        let kept_from = report.apis.clone();
        let address = SocketAddr::new(worker.ip, report.agent_port);
        let address = self.confirm(&node, &agent, address).await?;
        self.state
            .observe(Event::NodeReported {
                node: node.clone(),
                report: Box::new(report),
            })
            .await?;
        let send_held = self.check_accepted(&node, &agent, sequence).await?;
        let generation = self.with_assignment(&node, |assignment| {
            assignment.confirmed_at(agent, address);
            assignment.reported(identity, seen);
            (
                assignment.generation(),
                assignment.undelivered(),
                assignment.changed_reachability(),
            )
        });
        let (generation, undelivered, reachable) = generation;
        if let Some(reachable) = reachable {
            let node = node.clone();
            self.state
                .observe(Event::AgentReachable { node, reachable })
                .await?;
        }
        Ok(ReportAccepted {
            node,
            generation: generation.unwrap_or(seen),
            lease: config.planner.lease,
            apis: apis::if_changed(&config, kept_from.as_deref(), |worker| {
                self.address(worker).map(|address| address.socket)
            }),
            send_held,
            desired: undelivered.map(Box::new),
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

    /// Checks that the planner has accepted the report. Returns whether the agent is to tell which set it holds.
    async fn check_accepted(
        &self,
        node: &NodeName,
        agent: &str,
        sequence: u64,
    ) -> Result<bool, ReportError> {
        let (name, agent) = (node.clone(), agent.to_owned());
        let ask = move |cluster: &Cluster| {
            let last = cluster.last_report(&name);
            let absurd = last.is_some_and(|(last, number)| last == agent && number < sequence);
            (
                cluster.is_superseded(&name, &agent),
                absurd,
                cluster.wants_held_set(&name),
            )
        };
        let (superseded, absurd, wants_held_set) = self.state.query(ask).await?;
        if superseded {
            return Err(ReportError::Superseded { node: node.clone() });
        }
        if absurd {
            return Err(ReportError::AbsurdSequence {
                node: node.clone(),
                sequence,
            });
        }
        Ok(wants_held_set)
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
