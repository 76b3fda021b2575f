//! Trust anchors: the certificate of the cluster's authority, as copied to this machine.

use std::{fmt::Write, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{ServerName, UnixTime};

use crate::{Certificates, Error, Leaf, files, leaf::Parsed, provider};

/// The certificates of trusted authorities.
#[derive(Debug, Clone)]
pub struct Trust {
    pem: String,
    roots: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Trust {
    /// The certificates in a PEM text.
    ///
    /// # Errors
    /// There is none, or one is malformed.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let mut pem = String::new();
        for certificate in Parsed::of(text).map_err(Error::Unusable)?.chain {
            let block = pem::Pem::new("CERTIFICATE", certificate.as_ref());
            write!(pem, "{}", pem::encode_config(&block, unix_lines())).unwrap_or_default();
            let added = roots.add(certificate);
            added.map_err(|error| Error::Unusable(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Self {
            pem,
            roots,
            verifier,
        })
    }

    /// The certificates in a file; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Trust::from_pem`], with the file's name.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        let trust = Self::from_pem(&text).map_err(|error| Error::Content {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Some(trust))
    }

    /// Writes the certificates to a world-readable file, and nothing else that the source text had.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        if files::read(path)?.as_deref() == Some(&self.pem) {
            return Ok(());
        }
        files::write(path, &self.pem, files::PUBLIC)
    }

    /// The certificates, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Configuration of a client that trusts nothing else, and presents `own`. Sessions are not resumed: a resumed session
    /// would keep the identity of an earlier certificate.
    ///
    /// # Errors
    /// As [`crate::ProtocolSniffer::new`].
    pub fn client_config(&self, own: Arc<Certificates>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Unusable(error.to_string()))?
            .with_webpki_verifier(self.verifier.clone())
            .with_client_cert_resolver(own);
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Verifies the certificates of clients; a client may also present none.
    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Unusable(error.to_string()))
    }

    /// Verifies a server's certificate as a client does that connects to this address or host name at `now`.
    ///
    /// # Errors
    /// Why the client would refuse it.
    pub fn verify(&self, leaf: &Leaf, name: &str, now: SystemTime) -> Result<(), Error> {
        let unusable = |reason: String| Error::Unusable(reason);
        let name = ServerName::try_from(name).map_err(|error| unusable(error.to_string()))?;
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Some((own, intermediates)) = leaf.chain().split_first() else {
            return Err(unusable("there is no certificate".to_owned()));
        };
        let now = UnixTime::since_unix_epoch(now);
        let verified = self
            .verifier
            .verify_server_cert(own, intermediates, &name, &[], now);
        verified
            .map(drop)
            .map_err(|error| unusable(error.to_string()))
    }
}

fn unix_lines() -> pem::EncodeConfig {
    pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF)
}

#[cfg(test)]
mod tests;
