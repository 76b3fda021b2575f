//! The name servers of processes.
//!
//! Processes ask the agent, at the bridge's address, which passes look-ups of other names on to the node's own name servers, unless
//! agent.toml has others.
//!
//! While the agent cannot listen there, processes get the node's own servers. Processes have a loopback interface and IPv4
//! addresses of their own, so servers on loopback and IPv6 servers are then left out. Where `/etc/resolv.conf` has only the stub of
//! systemd-resolved, its real servers are in `/run/systemd/resolve/resolv.conf`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tucano_api::names::NAMES_DOMAIN;

use crate::files;

/// Larger files are not read.
const MAX_BYTES: u64 = 1 << 20;
/// Servers that resolvers use (`MAXNS` in resolv.h).
const MAX_SERVERS: usize = 3;

/// Where name servers come from.
#[derive(Debug, Clone)]
pub struct Resolver {
    configured: Vec<Ipv4Addr>,
    /// The files in order of preference.
    files: Vec<PathBuf>,
    /// Whether the agent answers look-ups; shared by clones.
    served: Arc<Mutex<Served>>,
}

/// Whether the agent answers look-ups of processes.
#[derive(Debug, Clone, Default)]
enum Served {
    /// It has not tried to yet.
    #[default]
    Unknown,
    /// It does, at this address.
    At(Ipv4Addr),
    /// It cannot. A message for the user.
    Not(String),
}

/// The resolver configuration of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Content of its `/etc/resolv.conf`.
    pub text: String,
    /// The name servers in it.
    pub servers: BTreeSet<Ipv4Addr>,
}

impl Resolver {
    /// These servers, or the node's own if there are none.
    pub fn new(configured: Vec<Ipv4Addr>) -> Self {
        let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
        Self {
            configured,
            files: files.map(PathBuf::from).into(),
            served: Arc::default(),
        }
    }

    /// The agent answers look-ups at this address from now on.
    pub fn served_at(&self, address: Ipv4Addr) {
        *self.served() = Served::At(address);
    }

    /// The agent cannot answer look-ups. A message for the user.
    pub fn not_served(&self, message: String) {
        *self.served() = Served::Not(message);
    }

    /// The node's name servers, in their order, which the agent asks. Blocking.
    pub fn upstreams(&self) -> Vec<IpAddr> {
        if !self.configured.is_empty() {
            return self.configured.iter().copied().map(IpAddr::V4).collect();
        }
        let files = self.files.iter().map(|file| nameservers(&read(file)));
        let mut usable = files.filter(|servers| !servers.is_empty());
        usable.next().unwrap_or_default()
    }

    /// The configuration for a process that starts now. Blocking.
    pub fn resolv_conf(&self) -> ResolvConf {
        let served = self.served().clone();
        match served {
            Served::At(address) => ResolvConf::of_agent(address),
            Served::Unknown | Served::Not(_) => self.of_node(),
        }
    }

    fn of_node(&self) -> ResolvConf {
        let texts = self.files.iter().map(|file| read(file));
        let texts: Vec<_> = texts.collect();
        if !self.configured.is_empty() {
            return ResolvConf::new(&texts[0], &self.configured);
        }
        let found = texts.iter().map(|text| (text, servers(text)));
        let usable = found.clone().find(|(_, servers)| !servers.is_empty());
        let (text, servers) = usable.unwrap_or((&texts[0], Vec::new()));
        ResolvConf::new(text, &servers)
    }

    /// The condition to report, if processes have no name server. Blocking.
    pub fn condition(&self) -> Option<String> {
        let (served, usable) = match self.served().clone() {
            Served::Not(message) => return Some(message),
            Served::At(_) => (true, !self.upstreams().is_empty()),
            Served::Unknown => (false, !self.of_node().servers.is_empty()),
        };
        (!usable).then(|| match served {
            true => "processes have no name server: /etc/resolv.conf has none; set `dns` in agent.toml".to_owned(),
            false => "processes have no name server: /etc/resolv.conf has none that is reachable from a container; set `dns` in agent.toml"
                .to_owned(),
        })
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvConf {
    /// These servers alone.
    pub fn of_servers(servers: &[Ipv4Addr]) -> Self {
        Self::new("", servers)
    }

    /// One server and one suffix: of several servers some resolvers take the first that does not know a name. A process asks again
    /// soon, so that the agent can be restarted.
    fn of_agent(server: Ipv4Addr) -> Self {
        Self {
            text: format!(
                "nameserver {server}\nsearch {NAMES_DOMAIN}\noptions timeout:2 attempts:4\n"
            ),
            servers: [server].into(),
        }
    }

    /// The other lines of `text`, and these servers.
    fn new(text: &str, servers: &[Ipv4Addr]) -> Self {
        let servers = &servers[..servers.len().min(MAX_SERVERS)];
        let others = text
            .lines()
            .filter(|line| keyword(line) != Some("nameserver"))
            .map(|line| format!("{line}\n"));
        let own = servers.iter().map(|ip| format!("nameserver {ip}\n"));
        Self {
            text: others.chain(own).collect(),
            servers: servers.iter().copied().collect(),
        }
    }
}

/// A file that cannot be read has no servers.
fn read(file: &std::path::Path) -> String {
    // /etc/resolv.conf is often a link.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let content = files::read_bounded(&file, MAX_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&content).into_owned()
}

fn keyword(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// The name servers, without duplicates and unspecified addresses.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver");
        let address = address.and_then(|_| words.next()?.parse::<IpAddr>().ok());
        if let Some(ip) = address.map(|ip| ip.to_canonical())
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !servers.contains(&ip)
        {
            servers.push(ip);
        }
    }
    servers.truncate(MAX_SERVERS);
    servers
}

/// The servers that processes can reach, without duplicates.
fn servers(text: &str) -> Vec<Ipv4Addr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if let Some(IpAddr::V4(ip)) = address.map(|ip| ip.to_canonical())
            && is_usable(ip)
            && !servers.contains(&ip)
        {
            servers.push(ip);
        }
    }
    servers
}

/// Whether a process may reach a name server at this address: not on loopback, which 0.0.0.0 means too.
pub(crate) fn is_usable(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast())
}

#[cfg(test)]
mod tests;
