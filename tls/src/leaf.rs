//! A program's key and certificate: in memory ([`Certificates`]) and on disk ([`Files`]).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::parse_x509_certificate;

use crate::{Error, Identity, Validity, files, provider};

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const REQUEST: &str = "request.pem";

/// A key and its certificate.
#[derive(Clone)]
pub struct Leaf {
    certified: Arc<CertifiedKey>,
    pem: String,
    validity: Validity,
    identity: Option<Identity>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Leaf {
    /// From a certificate and its key, both PEM.
    pub(crate) fn new(certificate: &str, key: &str) -> Result<Self, Error> {
        let parsed = Parsed::of(certificate).map_err(Error::Unusable)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| Error::Unusable("there is no private key".to_owned()))?;
        let certified = CertifiedKey::from_der(parsed.chain, key, &provider())
            .map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Self {
            certified: Arc::new(certified),
            pem: certificate.to_owned(),
            validity: parsed.validity,
            identity: parsed.identity,
        })
    }

    /// The identity in its subject; `None` for certificates of versions before mutual TLS.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The validity period.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

/// The parsed fields of a certificate, or of the first one of a chain.
pub(crate) struct Parsed {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) validity: Validity,
    pub(crate) public_key: Vec<u8>,
    pub(crate) identity: Option<Identity>,
}

impl Parsed {
    pub(crate) fn of(pem: &str) -> Result<Self, String> {
        let none = || "it holds no certificate".to_owned();
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| none())?;
        let (_, first) = parse_x509_certificate(chain.first().ok_or_else(none)?)
            .map_err(|_| "its certificate is malformed".to_owned())?;
        let validity = first.validity();
        Ok(Self {
            validity: Validity {
                begins: time(validity.not_before.timestamp()),
                ends: time(validity.not_after.timestamp()),
            },
            public_key: first.public_key().subject_public_key.data.to_vec(),
            identity: chain.first().and_then(Identity::of),
            chain,
        })
    }
}

/// Times before 1970 become 1970.
fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// The certificate that a program presents as a server and as a client; it can be replaced at any time.
#[derive(Debug, Default)]
pub struct Certificates(RwLock<Option<Leaf>>);

impl Certificates {
    /// Presents this certificate from now on.
    pub fn set(&self, leaf: Leaf) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(leaf);
    }

    /// The certificate that is presented now.
    pub fn current(&self) -> Option<Leaf> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current()?.certified)
    }
}

/// Certificates without an identity, and expired ones, are not for clients: a server would refuse the handshake, although
/// it serves some routes to clients without a certificate.
impl ResolvesClientCert for Certificates {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let leaf = self.current()?;
        let is_valid = leaf.validity.ends > SystemTime::now();
        (is_valid && leaf.identity.is_some()).then_some(leaf.certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Generates a key and stores it in this file, for its owner only.
pub(crate) fn make_key(path: &Path) -> Result<KeyPair, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    files::write(path, &key.serialize_pem(), files::PRIVATE)?;
    Ok(key)
}

/// A key that never leaves this directory, and the certificate that the authority issues for it.
pub struct Files {
    directory: PathBuf,
    key: KeyPair,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({})", self.directory.display())
    }
}

impl Files {
    /// Creates the directory and the key if they are missing. A damaged key is set aside as `key.pem.damaged`, and replaced:
    /// a certificate for the new one is requested as for a new node.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        files::directory(directory)?;
        let path = directory.join(KEY);
        let key = match files::read_lossy(&path)?.map(|pem| KeyPair::from_pem(&pem)) {
            Some(Ok(key)) => key,
            Some(Err(_)) => {
                let aside = files::set_aside(&path)?;
                tracing::warn!(damaged = %aside.display(), "not a private key: a new one is generated");
                make_key(&path)?
            }
            None => make_key(&path)?,
        };
        let directory = directory.to_owned();
        Ok(Self { directory, key })
    }

    /// The stored certificate, if it belongs to this key.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn leaf(&self) -> Result<Option<Leaf>, Error> {
        let pem = files::read_lossy(&self.directory.join(CERTIFICATE))?;
        Ok(pem.and_then(|pem| Leaf::new(&pem, &self.key.serialize_pem()).ok()))
    }

    /// A certificate signing request, in PEM (PKCS #10). The authority decides what the certificate is for.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn request(&self) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// Writes the request to a world-readable file of this directory, for a person who has it signed. Returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_request(&self) -> Result<PathBuf, Error> {
        let path = self.directory.join(REQUEST);
        files::write(&path, &self.request()?, files::PUBLIC)?;
        Ok(path)
    }

    /// Stores an issued certificate.
    ///
    /// # Errors
    /// It does not belong to this key; the previous one stays.
    pub fn store(&self, pem: &str) -> Result<Leaf, Error> {
        let leaf = Leaf::new(pem, &self.key.serialize_pem())?;
        files::write(&self.directory.join(CERTIFICATE), pem, files::PRIVATE)?;
        Ok(leaf)
    }
}

#[cfg(test)]
mod tests;
