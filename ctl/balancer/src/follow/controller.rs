//! The controller that a balancer follows: on this machine by its unix socket, on another one by mutual TLS.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tucano_api::ids::BalancerId;
use tucano_tls::{Error, Trust};

use super::{certificate::OwnCertificate, poll::PollError};

/// Longest part of the host's name in an id.
const HOST_MAX: usize = 60;

/// Where the controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Its unix socket.
    Socket(PathBuf),
    /// `host:port` of its API.
    Network(String),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = "write the path of a socket, or https://HOST:PORT";
        let Some(authority) = text.strip_prefix("https://") else {
            return match text.contains("://") {
                true => Err(usage.to_owned()),
                false => Ok(Self::Socket(text.into())),
            };
        };
        let authority = authority.trim_end_matches('/');
        match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Network(authority.to_owned()))
            }
            _ => Err(usage.to_owned()),
        }
    }
}

/// A byte stream to the controller.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The controller, and what this balancer is to it.
#[derive(Debug, Clone)]
pub struct Controller {
    link: Link,
    pid: u32,
    started: u128,
}

/// How it is reached.
#[derive(Clone)]
enum Link {
    Socket(PathBuf),
    Network {
        authority: String,
        server: ServerName<'static>,
        connector: TlsConnector,
        own: Arc<OwnCertificate>,
    },
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl Link {
    fn address(&self) -> Address {
        match self {
            Self::Socket(path) => Address::Socket(path.clone()),
            Self::Network { authority, .. } => Address::Network(authority.clone()),
        }
    }
}

impl Controller {
    /// The controller on this machine.
    pub fn local(socket: PathBuf) -> Self {
        Self::new(Link::Socket(socket))
    }

    /// A controller on another machine, `host:port`, whose certificate is of the authority in the file `ca`.
    ///
    /// # Errors
    /// The files are not usable, or the address is not one.
    pub fn remote(authority: String, ca: &Path, own: Arc<OwnCertificate>) -> Result<Self, Error> {
        let trust = Trust::read(ca)?.ok_or_else(|| Error::Content {
            path: ca.to_owned(),
            problem: "it does not exist: copy ca.pem from the controller (--ca)".to_owned(),
        })?;
        let host = authority.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let server = ServerName::try_from(host)
            .map_err(|error| Error::Unusable(format!("{authority}: {error} (--follow)")))?;
        let config = trust.client_config(own.certificates().clone())?;
        Ok(Self::new(Link::Network {
            authority,
            server,
            connector: TlsConnector::from(Arc::new(config)),
            own,
        }))
    }

    fn new(link: Link) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            link,
            pid: std::process::id(),
            started: started.unwrap_or_default().as_nanos(),
        }
    }

    /// The value of the Host header.
    pub(super) fn host(&self) -> &str {
        match &self.link {
            Link::Socket(_) => "controller",
            Link::Network { authority, .. } => authority,
        }
    }

    /// This balancer's identity: unlike that of any other. On another machine it begins with the name in the certificate.
    ///
    /// # Errors
    /// There is no certificate yet.
    pub fn balancer_id(&self) -> Result<BalancerId, PollError> {
        let name = match &self.link {
            Link::Socket(_) => host_name(),
            Link::Network { own, .. } => own.name().ok_or(PollError::NoCertificate)?,
        };
        BalancerId::new(&name, self.pid, self.started).map_err(PollError::Id)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The controller cannot be reached, or is not the one of this cluster.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, PollError> {
        let failed = |error| PollError::Connect(self.link.address(), error);
        match &self.link {
            Link::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                Ok(Box::new(stream))
            }
            Link::Network {
                authority,
                server,
                connector,
                ..
            } => {
                let stream = TcpStream::connect(authority).await.map_err(failed)?;
                let stream = connector.connect(server.clone(), stream).await;
                Ok(Box::new(stream.map_err(failed)?))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Network(authority) => write!(f, "https://{authority}"),
        }
    }
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '.' || *c == '-';
    host.chars().filter(is_plain).take(HOST_MAX).collect()
}

#[cfg(test)]
mod tests;
