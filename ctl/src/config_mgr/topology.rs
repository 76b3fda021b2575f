//! The nodes: exactly one controller, and workers with unique names and addresses.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use tucano_api::{
    ids::NodeName,
    service::{Labels, placement::MAX_LABELS},
};

use super::file::{Node, NodeKind, RestartCommand};

/// All nodes of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The controller's own node.
    pub ctl: CtlNode,
    /// The workers, in the file's order.
    pub workers: Vec<WorkerNode>,
}

/// The controller's own node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtlNode {
    /// Its configured name, else its address.
    pub name: NodeName,
    /// Its address.
    pub ip: IpAddr,
}

/// A node that runs processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerNode {
    /// Its configured name, else its address.
    pub name: NodeName,
    /// Its address.
    pub ip: IpAddr,
    /// Its labels.
    pub labels: Labels,
    /// The command that restarts it.
    pub restart: Option<RestartCommand>,
}

impl Topology {
    /// The worker named `name`, or with the address `ip` if no name is given.
    pub fn worker(&self, name: Option<&NodeName>, ip: IpAddr) -> Option<&WorkerNode> {
        self.workers.iter().find(|worker| match name {
            Some(name) => worker.name == *name,
            None => worker.ip == ip.to_canonical(),
        })
    }

    /// Whether a worker on another machine has this address.
    pub fn has_remote_worker(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        !ip.is_loopback() && self.workers.iter().any(|worker| worker.ip == ip)
    }

    /// The workers in the planner's terms.
    pub fn for_planner(&self) -> Vec<tucano_planner::Worker> {
        self.workers
            .iter()
            .map(|worker| tucano_planner::Worker {
                name: worker.name.clone(),
                ip: worker.ip,
                labels: worker.labels.clone(),
                can_restart: worker.restart.is_some(),
            })
            .collect()
    }
}

/// A problem in the topology, with its position.
pub(super) struct TopologyError {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
}

/// Validates the entries together. `line_of` is the line of a byte offset, for messages that refer to a second position.
pub(super) fn check(
    nodes: &[Node],
    line_of: impl Fn(usize) -> usize,
) -> Result<Topology, TopologyError> {
    let ctl = only_ctl(nodes, &line_of)?;
    let mut ips = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut checked = Vec::new();
    for node in nodes {
        let (ip, name) = (parse_ip(node)?, parse_name(node)?);
        if let Some(first) = ips.insert(ip, node.ip.span().start) {
            let line = line_of(first);
            let message = format!(
                "ip {ip} is already used on line {line}: every node of the topology needs its own"
            );
            return Err(at(node.ip.span(), message));
        }
        let name_at = node
            .name
            .as_ref()
            .map_or(node.ip.span(), |name| name.span());
        if let Some(first) = names.insert(name.clone(), name_at.start) {
            let line = line_of(first);
            let message = format!(
                "name {:?} is already used on line {line}: every node of the topology needs its own",
                name.as_str()
            );
            return Err(at(name_at, message));
        }
        check_restart(node)?;
        check_labels(node)?;
        checked.push((node, name, ip));
    }
    let (mut ctl_node, mut workers) = (None, Vec::new());
    for (node, name, ip) in checked {
        if std::ptr::eq(node, ctl) {
            ctl_node = Some(CtlNode { name, ip });
        } else {
            let labels = node.labels.as_ref().map(|labels| labels.get_ref().clone());
            workers.push(WorkerNode {
                name,
                ip,
                labels: labels.unwrap_or_default(),
                restart: node.restart.clone(),
            });
        }
    }
    let ctl = ctl_node.ok_or_else(|| at(ctl.kind.span(), "topology names no ctl".to_owned()))?;
    Ok(Topology { ctl, workers })
}

fn at(span: Range<usize>, message: String) -> TopologyError {
    TopologyError {
        span: Some(span),
        message,
    }
}

fn only_ctl<'a>(
    nodes: &'a [Node],
    line_of: &impl Fn(usize) -> usize,
) -> Result<&'a Node, TopologyError> {
    let ctls: Vec<&Node> = nodes
        .iter()
        .filter(|node| *node.kind.get_ref() == NodeKind::Ctl)
        .collect();
    match ctls.as_slice() {
        [one] => Ok(one),
        [] => Err(TopologyError {
            span: nodes.first().map(|node| node.kind.span()),
            message: "topology names no ctl: add [[topology]] with kind = \"ctl\" and the ip of the controller's node"
                .to_owned(),
        }),
        [_, second, ..] => {
            let lines: Vec<String> = ctls
                .iter()
                .map(|node| line_of(node.kind.span().start).to_string())
                .collect();
            let message = format!(
                "topology names {} nodes of kind \"ctl\" (lines {}): keep one and write kind = \"worker\" for the others",
                ctls.len(),
                lines.join(", ")
            );
            Err(at(second.kind.span(), message))
        }
    }
}

fn parse_ip(node: &Node) -> Result<IpAddr, TopologyError> {
    let text = node.ip.get_ref();
    let ip: IpAddr = text.parse().map_err(|_| {
        let message = format!("ip {text:?} is not an address: write for example \"10.0.0.11\"");
        at(node.ip.span(), message)
    })?;
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        let message =
            format!("ip {ip} is not the address of one node: write for example \"10.0.0.11\"");
        return Err(at(node.ip.span(), message));
    }
    Ok(ip)
}

fn parse_name(node: &Node) -> Result<NodeName, TopologyError> {
    let Some(name) = &node.name else {
        let ip = parse_ip(node)?;
        return ip.to_string().parse().map_err(|_| {
            let message = format!("{ip} cannot serve as a name: add name = \"...\" to this node");
            at(node.ip.span(), message)
        });
    };
    name.get_ref()
        .parse()
        .map_err(|error: tucano_api::ids::InvalidId| at(name.span(), error.to_string()))
}

fn check_labels(node: &Node) -> Result<(), TopologyError> {
    let Some(labels) = &node.labels else {
        return Ok(());
    };
    let count = labels.get_ref().len();
    if count > MAX_LABELS {
        let message = format!("{count} labels are too many: the limit is {MAX_LABELS} for a node");
        return Err(at(labels.span(), message));
    }
    if *node.kind.get_ref() == NodeKind::Ctl {
        let message =
            "labels have no meaning for the ctl node, which runs no processes: remove them";
        return Err(at(labels.span(), message.to_owned()));
    }
    Ok(())
}

fn check_restart(node: &Node) -> Result<(), TopologyError> {
    let Some(command) = &node.restart else {
        return Ok(());
    };
    if *node.kind.get_ref() == NodeKind::Ctl {
        let message = "restart has no meaning for the ctl node: the controller cannot restart itself; remove it";
        return Err(at(node.kind.span(), message.to_owned()));
    }
    let argv = command.argv();
    if argv.first().is_none_or(String::is_empty) || argv.iter().any(|part| part.contains('\0')) {
        let message = "restart names no program: write for example [\"ssh\", \"w1\", \"reboot\"]";
        return Err(at(node.kind.span(), message.to_owned()));
    }
    Ok(())
}
