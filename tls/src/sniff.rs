//! Protocol sniffing: TLS and plain HTTP share a port. The first byte of a connection decides, and is peeked, not read.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{Certificates, Error, Mode, Stream, Trust, provider};

/// First byte of every TLS connection: the record type `handshake` (RFC 8446, 5.1). No HTTP request starts with it.
const HANDSHAKE: u8 = 0x16;
/// Lingering close: how much, and for how long, is read from a refused client so that the answer reaches it.
const LINGER_BYTES: u64 = 1 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Where plain HTTP is accepted beside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    /// On every local address.
    Everywhere,
    /// On loopback addresses: from programs on this machine.
    LoopbackOnly,
}

impl From<Mode> for PlainHttp {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::On => Self::LoopbackOnly,
            Mode::Off => Self::Everywhere,
        }
    }
}

impl PlainHttp {
    /// Whether a plain request to this local address is accepted.
    pub fn is_accepted_on(self, local: IpAddr) -> bool {
        self == Self::Everywhere || local.to_canonical().is_loopback()
    }
}

/// Accepts connections of either protocol.
#[derive(Clone)]
pub struct ProtocolSniffer {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    plain: PlainHttp,
    /// The answer to plain requests where they are not accepted.
    refusal: Arc<str>,
}

impl std::fmt::Debug for ProtocolSniffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProtocolSniffer({:?})", self.plain)
    }
}

impl ProtocolSniffer {
    /// Serves these certificates; handshakes fail while there is none. Clients may present certificates that `trust`
    /// verifies; without it they have no identity. `setting` names the configuration that allows
    /// plain HTTP, such as `[api] tls = "off"` in ctl.toml, and is part of the refusal.
    ///
    /// # Errors
    /// Only if the cryptography provider supports no protocol version.
    pub fn new(
        certificates: Arc<Certificates>,
        trust: Option<&Trust>,
        plain: PlainHttp,
        setting: &str,
    ) -> Result<Self, Error> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Unusable(error.to_string()))?;
        let config = match trust {
            Some(trust) => config.with_client_cert_verifier(trust.client_verifier()?),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
            plain,
            refusal: refusal(setting).into(),
        })
    }

    /// Reads the first byte and completes the handshake. A refused plain client gets an answer that says why. The caller
    /// bounds the time.
    ///
    /// # Errors
    /// Why the connection is refused.
    pub async fn accept(&self, mut stream: TcpStream) -> io::Result<Stream> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first == [HANDSHAKE] {
            if self.certificates.current().is_none() {
                return Err(io::Error::other("there is no certificate yet"));
            }
            let stream = self.acceptor.accept(stream).await?;
            return Ok(Stream::Tls(Box::new(stream)));
        }
        if self.plain.is_accepted_on(stream.local_addr()?.ip()) {
            return Ok(Stream::Plain(stream));
        }
        refuse(&mut stream, &self.refusal).await?;
        Err(io::Error::other(
            "plain HTTP is not accepted on this address",
        ))
    }
}

/// The complete HTTP response.
fn refusal(setting: &str) -> String {
    let body = format!(
        "{{\"error\":\"this address speaks TLS: use https:// (see the guide, TLS), or, where something else protects the \
         network, set {}\",\"code\":\"tls_required\"}}\n",
        setting.replace('"', "\\\"")
    );
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads on after the answer: closing with unread data resets the connection, and the answer could be lost.
async fn refuse(stream: &mut TcpStream, refusal: &str) -> io::Result<()> {
    stream.write_all(refusal.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    let mut sink = tokio::io::sink();
    match timeout(LINGER_TIME, tokio::io::copy(&mut rest, &mut sink)).await {
        Ok(read) => read.map(drop),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
