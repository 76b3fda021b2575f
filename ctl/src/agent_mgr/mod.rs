//! The controller's side of the agents: takes their reports, sends them their desired sets, restarts their nodes.

mod assign;
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
use tucano_planner::Event;

use self::assign::Runner;
pub use self::client::AgentClient;
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
    /// When it is from nobody we know.
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
        let (node, seen) = (worker.name.clone(), report.generation);
        let address = SocketAddr::new(worker.ip, report.agent_port);
        self.runner(&node, |runner| runner.is_at(address));
        self.brain
            .note(Event::NodeReported {
                node: node.clone(),
                report: Box::new(report),
            })
            .await?;
        let generation = self.runner(&node, |runner| {
            runner.has_seen(seen);
            runner.generation()
        });
        Ok(ReportAccepted {
            node,
            generation: generation.unwrap_or(seen),
            lease: config.planner.lease,
        })
    }

    /// Sends a desired set to its node, as soon as it is known where that is. Does not wait.
    pub fn assign(&self, set: DesiredSet) {
        let node = set.node.clone();
        self.runner(&node, |runner| runner.assign(set));
    }

    /// Where a node's agent listens, if it has reported since the controller started.
    pub fn address(&self, node: &NodeName) -> Option<SocketAddr> {
        self.lock().get(node)?.address()
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
