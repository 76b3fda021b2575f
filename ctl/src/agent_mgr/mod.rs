//! The controller's side of the agents: takes their reports, sends them their desired sets, restarts their nodes.

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

use self::assign::Runner;
pub use self::{
    certify::NotEntitled,
    client::{AgentAddress, AgentClient, AgentError},
};
use crate::{
    brain::{Brain, Refused},
    config_mgr::ConfigManager,
};

/// Knows where each agent is and what it was last told.
#[derive(Debug)]
pub struct AgentManager {
    config: Arc<ConfigManager>,
    brain: Brain,
    client: AgentClient,
    runners: Mutex<BTreeMap<NodeName, Runner>>,
    restarting: Mutex<BTreeSet<NodeName>>,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The topology has no such worker.
    #[error(
        "{node} is not a worker of the topology: add it to ctl.toml ([[topology]] with kind = \"worker\" and ip = \"{ip}\") and reload, or set name or ip in agent.toml to one that is there"
    )]
    UnknownNode {
        /// What it calls itself.
        node: String,
        /// Its address.
        ip: std::net::IpAddr,
    },
    /// Whoever sent it is not found where its node is.
    #[error(
        "the report for {node} was refused, for it is not from the agent at {address}: {why}. The controller must be able to connect to the agent there: mind firewalls, and that each machine has a name and ip of its own in agent.toml"
    )]
    Unconfirmed {
        /// The worker.
        node: NodeName,
        /// Where its agent should be.
        address: SocketAddr,
        /// What happened there.
        why: String,
    },
    /// Another agent of this node was started later, and is alive.
    #[error(
        "another agent reports for {node}, and was started later than this one: stop one of them, or give it another name and ip in its agent.toml"
    )]
    Superseded {
        /// The worker.
        node: NodeName,
    },
    /// The controller is about to end.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl AgentManager {
    /// Knows no agent yet.
    pub fn new(config: Arc<ConfigManager>, brain: Brain, client: AgentClient) -> Self {
        Self {
            config,
            brain,
            client,
            runners: Mutex::default(),
            restarting: Mutex::default(),
        }
    }

    /// Takes a report into the cluster's state.
    ///
    /// # Errors
    /// When it is from nobody we know, or not from the one agent of its node.
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
        self.brain
            .note(Event::NodeReported {
                node: node.clone(),
                report: Box::new(report),
            })
            .await?;
        self.admitted(&node, &agent).await?;
        let generation = self.runner(&node, |runner| {
            runner.is_reached_at(agent, address);
            runner.has_seen(seen);
            runner.generation()
        });
        Ok(ReportAccepted {
            node,
            generation: generation.unwrap_or(seen),
            lease: config.planner.lease,
            apis: apis::unless_known(&config, kept_from.as_deref(), |worker| {
                self.address(worker).map(|address| address.socket)
            }),
        })
    }

    /// Asks at the node's address, once for each agent, whether it is there that this report comes from: whoever has
    /// a copy of an agent's configuration must not speak for its node, and a node that cannot be told what to run
    /// is not alive.
    async fn confirm(
        &self,
        node: &NodeName,
        agent: &str,
        address: SocketAddr,
    ) -> Result<AgentAddress, ReportError> {
        if let Some(known) = self.runner(node, |runner| runner.reaches(agent, address)) {
            return Ok(known);
        }
        let unconfirmed = |why: String| ReportError::Unconfirmed {
            node: node.clone(),
            address,
            why,
        };
        let answer = self.client.find(address).await;
        let (address, identity) = answer.map_err(|error| unconfirmed(error.to_string()))?;
        if identity.agent_id == agent {
            return Ok(address);
        }
        Err(unconfirmed("another agent answers there".to_owned()))
    }

    /// Whether the planner took the report for one of the node's present agent.
    async fn admitted(&self, node: &NodeName, agent: &str) -> Result<(), ReportError> {
        let (name, agent) = (node.clone(), agent.to_owned());
        let is_superseded = move |cluster: &Cluster| cluster.is_superseded(&name, &agent);
        if self.brain.query(is_superseded).await? {
            return Err(ReportError::Superseded { node: node.clone() });
        }
        Ok(())
    }

    /// Sends a desired set to its node, as soon as it is known where that is. Does not wait.
    pub fn assign(&self, set: DesiredSet) {
        let node = set.node.clone();
        self.runner(&node, |runner| runner.assign(set));
    }

    /// Where a node's agent listens, if it has reported since the controller started.
    pub fn address(&self, node: &NodeName) -> Option<AgentAddress> {
        self.lock().get(node)?.address()
    }

    /// Where agents listen, if there are no more of them than `most`.
    pub fn addresses(&self, most: usize) -> Vec<AgentAddress> {
        let addresses: Vec<_> = self.lock().values().filter_map(Runner::address).collect();
        if addresses.len() > most {
            return Vec::new();
        }
        addresses
    }

    /// The newest generation a node was assigned since the controller started.
    pub fn assigned(&self, node: &NodeName) -> Option<Generation> {
        self.lock().get(node)?.generation()
    }

    /// Requests to agents.
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    fn runner<T>(&self, node: &NodeName, act: impl FnOnce(&mut Runner) -> T) -> T {
        let mut runners = self.lock();
        let runner = runners
            .entry(node.clone())
            .or_insert_with(|| Runner::start(node.clone(), self.client.clone()));
        act(runner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Runner>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
