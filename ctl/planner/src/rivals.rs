//! Two agents that claim to be the same worker's: one that was started again, and one that was copied with its
//! configuration, look alike at first. The newest one counts, for a restart is the usual case; the one before it is
//! not to be heard again as long as the newest one is alive, and where it is, there are two.

use std::collections::VecDeque;

use tucano_api::{
    agent::NodeReport,
    ids::NodeName,
    state::AlertKind,
    units::{Span, Timestamp},
};

use crate::{cluster::Cluster, nodes::Node};

/// Superseded agents of a worker that are remembered.
const MOST_SUPERSEDED: usize = 8;
/// Leases without a word of a rival after which the next one is news again.
const QUIET_LEASES: u32 = 10;

/// What is known of the other agents of a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rivals {
    /// Ids of agents that another one has followed, oldest first.
    superseded: VecDeque<String>,
    /// The superseded one that was last heard of, and its report's number.
    last: Option<(String, u64)>,
    /// Until when the sysadmin is not told again.
    told_until: Option<Timestamp>,
}

impl Node {
    /// Whether a newer agent has taken this one's place, and is alive. When the newer one is lost, whoever is
    /// there is welcome.
    pub(crate) fn is_superseded(&self, agent: &str) -> bool {
        self.is_alive() && self.rivals.superseded.iter().any(|other| other == agent)
    }

    /// Makes this agent the one that counts.
    pub(crate) fn succeed(&mut self, agent: &str) {
        let Some((before, _)) = self.last_heard.as_ref().filter(|(id, _)| id != agent) else {
            return;
        };
        let superseded = &mut self.rivals.superseded;
        superseded.retain(|other| other != agent && other != before);
        superseded.push_back(before.clone());
        if superseded.len() > MOST_SUPERSEDED {
            superseded.pop_front();
        }
    }
}

impl Cluster {
    /// Whether another agent than this one counts for its worker.
    pub fn is_superseded(&self, node: &NodeName, agent: &str) -> bool {
        let index = self.node_index.get(node);
        let heard = index.and_then(|index| self.nodes[*index].last_heard.as_ref());
        heard.is_some_and(|(current, _)| current != agent)
    }

    /// A superseded agent was heard. Its last report may have been under way while it ended: only a second, later one
    /// shows that it lives.
    pub(crate) fn contest(&mut self, index: usize, report: &NodeReport) {
        let quiet = Span(self.settings.lease.0.saturating_mul(QUIET_LEASES));
        let now = self.now;
        let node = &mut self.nodes[index];
        let rivals = &mut node.rivals;
        let lives = rivals.last.as_ref().is_some_and(|(agent, sequence)| {
            *agent == report.agent_id && *sequence < report.sequence
        });
        rivals.last = Some((report.agent_id.clone(), report.sequence));
        if !lives {
            return;
        }
        let is_news = rivals.told_until.is_none_or(|until| until <= now);
        rivals.told_until = Some(now.after(quiet));
        if is_news {
            let name = node.record.name.clone();
            let message = format!(
                "two agents claim to be worker {name} ({}): the one that was started last counts, the other one's reports \
                 are refused. Stop one of them, or give it another name and ip in its agent.toml",
                node.worker.ip
            );
            self.alert(AlertKind::NodeContested, name, message);
        }
    }
}
