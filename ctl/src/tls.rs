//! The controller's side of TLS: the cluster's authority, the controller's own certificate, and where plain HTTP is taken.
//!
//! In `<data_dir>/tls/`: `ca-key.pem`, `ca.pem`, and [`MARKER`] where the cluster was made before it had any of this.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tucano_api::{
    state::{Alert, AlertKind},
    units::Timestamp,
};
use tucano_tls::{Authority, Certificates, Door, Error, Mode, Trust, Validity, authority::Name};

use crate::config_mgr::{Config, ConfigManager, Listen};

/// Says that nobody has decided yet whether this cluster, whose programs spoke plain HTTP, is to speak TLS.
const MARKER: &str = "plain-until-set";
/// Between two looks at what the own certificate should be.
const LOOK: Duration = Duration::from_secs(60);

/// What the controller has of TLS.
#[derive(Debug)]
pub struct Tls {
    authority: Authority,
    certificates: Arc<Certificates>,
    mode: Mode,
    is_undecided: bool,
}

/// Where it is, below the data directory.
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("tls")
}

impl Tls {
    /// Opens the authority, or makes it; `has_state` is whether there was a cluster before this start.
    ///
    /// # Errors
    /// What is wrong with its files.
    pub fn open(config: &Config, has_state: bool) -> Result<Self, Error> {
        let directory = directory(config);
        let is_undecided = is_undecided(&directory, config, has_state)?;
        let default = if is_undecided { Mode::Off } else { Mode::On };
        Ok(Self {
            authority: Authority::open(&directory)?,
            certificates: Arc::default(),
            mode: config.tls.unwrap_or(default),
            is_undecided,
        })
    }

    /// What connections to the API go through.
    ///
    /// # Errors
    /// None that is known of.
    pub fn door(&self) -> Result<Door, Error> {
        let setting = "tls = \"off\" in [api] of ctl.toml, and in every agent.toml";
        Door::new(self.certificates.clone(), self.mode.into(), setting)
    }

    /// The certificate of the authority, in PEM.
    pub fn authority(&self) -> &str {
        self.authority.pem()
    }

    /// Whether agents on other machines have to speak TLS.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the sysadmin is to hear of the choice that is missing.
    pub fn alert(&self, now: Timestamp) -> Option<Alert> {
        self.is_undecided.then(|| Alert {
            kind: AlertKind::WireUnprotected,
            subject: "api.tls".to_owned(),
            message: "this cluster was made before TLS: its programs go on speaking plain HTTP. Bring ca.pem and \
                      https:// to the workers (see the guide, TLS), then write tls = \"on\" into [api] of ctl.toml; or \
                      tls = \"off\", where something else protects the network"
                .to_owned(),
            at: now,
        })
    }

    /// A certificate for a worker's address, in PEM.
    ///
    /// # Errors
    /// A request that is none.
    pub fn sign(&self, request: &str, ip: IpAddr) -> Result<String, Error> {
        self.authority
            .sign(request, ip, Validity::from(SystemTime::now()))
    }

    /// Has a certificate for these names, unless it has one that will do.
    fn have(&self, names: &Names, had: &mut Names) -> Result<(), Error> {
        let now = SystemTime::now();
        let is_due = |leaf: tucano_tls::Leaf| leaf.validity().is_due(now);
        if names == had && !self.certificates.presented().is_none_or(is_due) {
            return Ok(());
        }
        let list: Vec<Name> = names.iter().cloned().collect();
        let leaf = self.authority.issue(&list, Validity::from(now))?;
        self.certificates.present(leaf);
        tracing::info!(?names, "the controller has a new certificate");
        had.clone_from(names);
        Ok(())
    }

    /// Has a certificate, and another one whenever it is time, or the configuration has other names.
    ///
    /// # Errors
    /// Why there is no first one.
    pub fn begin(
        self: &Arc<Self>,
        config: Arc<ConfigManager>,
        listeners: Vec<SocketAddr>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let mut had = Names::new();
        self.have(&names(&config.current(), &listeners), &mut had)?;
        let tls = self.clone();
        Ok(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = tls.have(&names(&config.current(), &listeners), &mut had) {
                    tracing::error!(%error, "the controller's certificate cannot be renewed");
                }
            }
        })
    }
}

/// Copies the authority's certificate for everybody to read, as the package's unit has it done. Whoever runs this may be
/// root, and what it reads another user's: nothing but certificates is copied.
///
/// # Errors
/// What is missing, and files that cannot be used.
pub fn write_ca(config: &Config, path: &Path) -> Result<(), Error> {
    let own = Authority::certificate_in(&directory(config));
    let trust = Trust::read(&own)?.ok_or_else(|| Error::Content {
        path: own,
        problem: "it is not there yet: the controller makes it at its first start".to_owned(),
    })?;
    trust.write(path)
}

type Names = BTreeSet<Name>;

/// All names that the controller is known to be reached by.
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

/// Whether the cluster is older than its TLS, and nobody has said what is to be.
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
        has_state && concerns_others(config) && !Authority::certificate_in(directory).exists();
    if is_older {
        fs::create_dir_all(directory).map_err(failed("create"))?;
        fs::write(&marker, "").map_err(failed("write"))?;
    }
    Ok(marker.exists())
}

/// Whether anything goes to another machine, or may.
fn concerns_others(config: &Config) -> bool {
    let listens = config.listen.iter().any(|listen| match listen {
        Listen::Address(address) => !address.ip().to_canonical().is_loopback(),
        Listen::Stdin => false,
    });
    let workers = &config.topology.workers;
    listens || workers.iter().any(|worker| !worker.ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_mgr::tests::minimal;

    fn config(tls: Option<Mode>, worker: &str, directory: &Path) -> Config {
        let mut config = minimal("agent_token = \"fedcba9876543210\"");
        config.tls = tls;
        config.data_dir = directory.to_owned();
        config.topology.workers[0].ip = worker.parse().unwrap();
        config
    }

    #[test]
    fn a_cluster_from_before_tls_stays_as_it_was_until_somebody_decides() {
        let directory = tempfile::tempdir().unwrap();
        let open = |tls, has_state| {
            Tls::open(&config(tls, "10.0.0.11", directory.path()), has_state).unwrap()
        };
        let now = Timestamp(0);
        for _ in 0..2 {
            let tls = open(None, true);
            assert_eq!(tls.mode(), Mode::Off);
            assert!(tls.alert(now).unwrap().message.contains("tls = \"on\""));
        }
        for mode in [Mode::Off, Mode::On] {
            let tls = open(Some(mode), true);
            assert_eq!((tls.mode(), tls.alert(now)), (mode, None));
        }
        // From then on it is one as any other.
        let tls = open(None, true);
        assert_eq!((tls.mode(), tls.alert(now)), (Mode::On, None));
    }

    #[test]
    fn a_new_cluster_and_one_of_a_single_machine_speak_tls_from_the_beginning() {
        for (worker, has_state) in [("10.0.0.11", false), ("127.0.0.11", true)] {
            let directory = tempfile::tempdir().unwrap();
            let tls = Tls::open(&config(None, worker, directory.path()), has_state).unwrap();
            assert_eq!(tls.mode(), Mode::On);
            assert!(tls.alert(Timestamp(0)).is_none());
        }
    }

    #[test]
    fn a_certificate_is_for_all_names_and_made_anew_for_others_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(None, "10.0.0.11", directory.path());
        config.topology.ctl.ip = "10.0.0.1".parse().unwrap();
        config.names = vec![Name::parse("ctl.example").unwrap()];
        config
            .listen
            .push(Listen::Address("0.0.0.0:1".parse().unwrap()));
        let tls = Tls::open(&config, false).unwrap();
        let all = names(&config, &["10.1.0.1:7070".parse().unwrap()]);
        let mut had = Names::new();
        tls.have(&all, &mut had).unwrap();
        let first = tls.certificates.presented().unwrap();
        let trust = Trust::from_pem(tls.authority()).unwrap();
        for name in [
            "10.0.0.1",
            "10.1.0.1",
            "127.0.0.1",
            "::1",
            "localhost",
            "ctl.example",
        ] {
            trust.vouches_for(&first, name, SystemTime::now()).unwrap();
        }
        tls.have(&all, &mut had).unwrap();
        assert_eq!(tls.certificates.presented().unwrap().pem(), first.pem());
        tls.have(&names(&config, &[]), &mut had).unwrap();
        assert_ne!(tls.certificates.presented().unwrap().pem(), first.pem());
        // So is one that is soon over.
        let over = SystemTime::now() - Duration::from_secs(25 * 86_400);
        let list: Vec<Name> = had.iter().cloned().collect();
        let old = tls.authority.issue(&list, Validity::from(over)).unwrap();
        tls.certificates.present(old.clone());
        tls.have(&names(&config, &[]), &mut had).unwrap();
        assert_ne!(tls.certificates.presented().unwrap().pem(), old.pem());
    }
}
