//! The controller's side of TLS: the cluster's authority, the controller's certificate, and where plain HTTP is accepted.
//!
//! In `<data_dir>/tls/`: `ca-key.pem`, `ca.pem`, `nodes.json`, and [`MARKER`] if the cluster is older than its TLS support.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tucano_api::{
    state::{Alert, AlertKind},
    units::Timestamp,
};
use tucano_tls::{
    Authority, Certificates, ClientConfig, Error, Identity, Mode, ProtocolSniffer, Trust, Validity,
    authority::Name,
};

use crate::{
    certified_nodes::CertifiedNodes,
    config_mgr::{Config, ConfigManager, Listen, topology::WorkerNode},
    store::Age,
};

/// Marks a cluster that used plain HTTP before TLS existed and whose `api.tls` is not set yet.
const MARKER: &str = "plain-until-set";
/// Alert while `api.tls` is not set in a cluster older than TLS.
const UNDECIDED: &str = "this cluster is older than TLS: its programs still use plain HTTP. Copy ca.pem and configure \
     https:// on the workers (see the guide, TLS), then set tls = \"on\" in [api] of ctl.toml; or \
     tls = \"off\" if something else protects the network";
/// Alert while other machines use plain HTTP.
const DEPRECATED: &str = "tls = \"off\" in [api] of ctl.toml is deprecated, and the next minor version does not support it: without TLS, nodes \
     have no identity, and the agent_token commands every worker. Copy ca.pem and configure https:// on the workers (see the \
     guide, TLS), then set tls = \"on\"";
/// Interval of checks whether the controller's certificate is current.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// The controller's TLS state.
#[derive(Debug)]
pub struct Tls {
    authority: Authority,
    trust: Trust,
    certificates: Arc<Certificates>,
    nodes: CertifiedNodes,
    mode: Mode,
    /// Whether other machines are involved.
    uses_network: bool,
    is_undecided: bool,
}

/// The directory of its files.
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("tls")
}

impl Tls {
    /// Opens the authority, or creates it.
    ///
    /// # Errors
    /// Its files are not usable.
    pub fn open(config: &Config, age: Age) -> Result<Self, Error> {
        let directory = directory(config);
        let is_undecided = is_undecided(&directory, config, age != Age::New)?;
        let default = if is_undecided { Mode::Off } else { Mode::On };
        let mode = config.tls.unwrap_or(default);
        let authority = Authority::open(&directory)?;
        let workers = || {
            let names = config.topology.workers.iter().map(|it| it.name.clone());
            names.filter(|_| age == Age::BeforeIdentities).collect()
        };
        Ok(Self {
            trust: Trust::from_pem(authority.pem())?,
            authority,
            certificates: Arc::default(),
            nodes: CertifiedNodes::open(&directory, mode, workers)?,
            mode,
            uses_network: uses_network(config),
            is_undecided,
        })
    }

    /// Accepts connections to the API.
    ///
    /// # Errors
    /// As [`ProtocolSniffer::new`].
    pub fn sniffer(&self) -> Result<ProtocolSniffer, Error> {
        let setting = "tls = \"off\" in [api] of ctl.toml, and in every agent.toml";
        let certificates = self.certificates.clone();
        ProtocolSniffer::new(certificates, Some(&self.trust), self.mode.into(), setting)
    }

    /// TLS of requests to agents: it trusts the authority alone, and presents the controller's certificate.
    ///
    /// # Errors
    /// As [`ProtocolSniffer::new`].
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        self.trust.client_config(self.certificates.clone())
    }

    /// The nodes that must present their certificate.
    pub fn nodes(&self) -> &CertifiedNodes {
        &self.nodes
    }

    /// Whether agents on other machines must use TLS.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The alert about plain HTTP between machines.
    pub fn alert(&self, now: Timestamp) -> Option<Alert> {
        let message = match (self.is_undecided, self.mode) {
            (true, _) => UNDECIDED,
            (false, Mode::Off) if self.uses_network => DEPRECATED,
            _ => return None,
        };
        Some(Alert {
            kind: AlertKind::WireUnprotected,
            subject: "api.tls".to_owned(),
            message: message.to_owned(),
            at: now,
        })
    }

    /// Issues a certificate for a worker, in PEM.
    ///
    /// # Errors
    /// The signing request is malformed.
    pub fn sign(&self, request: &str, worker: &WorkerNode) -> Result<String, Error> {
        let identity = Identity::Node(worker.name.to_string());
        self.sign_for(request, &identity, &[Name::Ip(worker.ip)])
    }

    /// Issues a certificate with this identity for these names, in PEM.
    ///
    /// # Errors
    /// The signing request is malformed.
    pub fn sign_for(
        &self,
        request: &str,
        identity: &Identity,
        names: &[Name],
    ) -> Result<String, Error> {
        let validity = Validity::from(SystemTime::now());
        self.authority.sign(request, identity, names, validity)
    }

    /// Issues a certificate for these names, unless the current one is for `issued`, the same names, and not due.
    fn ensure(&self, names: &Names, issued: &mut Names) -> Result<(), Error> {
        let now = SystemTime::now();
        let is_due = |leaf: tucano_tls::Leaf| leaf.validity().is_due(now);
        if names == issued && !self.certificates.current().is_none_or(is_due) {
            return Ok(());
        }
        let list: Vec<Name> = names.iter().cloned().collect();
        let leaf = self
            .authority
            .issue(&Identity::Controller, &list, Validity::from(now))?;
        self.certificates.set(leaf);
        tracing::info!(?names, "the controller has a new certificate");
        issued.clone_from(names);
        Ok(())
    }

    /// Issues the first certificate. The returned future renews it when it is due or the names change.
    ///
    /// # Errors
    /// The first certificate cannot be issued.
    pub fn issue_and_renew(
        self: &Arc<Self>,
        config: Arc<ConfigManager>,
        listeners: Vec<SocketAddr>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let mut issued = Names::new();
        self.ensure(&names(&config.current(), &listeners), &mut issued)?;
        let tls = self.clone();
        Ok(async move {
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                if let Err(error) = tls.ensure(&names(&config.current(), &listeners), &mut issued) {
                    tracing::error!(%error, "the controller's certificate cannot be renewed");
                }
            }
        })
    }
}

/// Copies the authority's certificate to a world-readable file, as the package's unit does. The caller may be root and
/// the source another user's: nothing but certificates is copied.
///
/// # Errors
/// The certificate is missing, or a file is not usable.
pub fn write_ca(config: &Config, path: &Path) -> Result<(), Error> {
    let own = Authority::certificate_in(&directory(config));
    let trust = Trust::read(&own)?.ok_or_else(|| Error::Content {
        path: own,
        problem: "it does not exist yet: the controller creates it when it first starts".to_owned(),
    })?;
    trust.write(path)
}

type Names = BTreeSet<Name>;

/// All names and addresses that clients may use for the controller.
fn names(config: &Config, listeners: &[SocketAddr]) -> Names {
    let listening = config.listen.iter().filter_map(|listen| match listen {
        Listen::Address(address) => Some(address.ip()),
        Listen::Stdin => None,
    });
    let ips = [
        config.topology.ctl.ip,
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let ips = listening
        .chain(listeners.iter().map(SocketAddr::ip))
        .chain(ips)
        .filter(|ip| !ip.is_unspecified())
        .map(|ip| Name::Ip(ip.to_canonical()));
    let host = rustix::system::uname();
    let hosts = [host.nodename().to_str().unwrap_or_default(), "localhost"];
    let hosts = hosts.into_iter().filter_map(Name::parse);
    ips.chain(hosts)
        .chain(config.names.iter().cloned())
        .collect()
}

/// Whether the cluster is older than TLS and `api.tls` is not set.
fn is_undecided(directory: &Path, config: &Config, has_state: bool) -> Result<bool, Error> {
    let marker = directory.join(MARKER);
    let failed = |action| {
        let path = marker.clone();
        move |source| Error::File {
            action,
            path,
            source,
        }
    };
    if config.tls.is_some() {
        return match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove")(error)),
            _ => Ok(false),
        };
    }
    let is_older =
        has_state && uses_network(config) && !Authority::certificate_in(directory).exists();
    if is_older {
        fs::create_dir_all(directory).map_err(failed("create"))?;
        fs::write(&marker, "").map_err(failed("write"))?;
    }
    Ok(marker.exists())
}

/// Whether the configuration involves another machine.
fn uses_network(config: &Config) -> bool {
    let listens = config.listen.iter().any(|listen| match listen {
        Listen::Address(address) => !address.ip().to_canonical().is_loopback(),
        Listen::Stdin => false,
    });
    let workers = &config.topology.workers;
    listens || workers.iter().any(|worker| !worker.ip.is_loopback())
}

#[cfg(test)]
mod tests;
