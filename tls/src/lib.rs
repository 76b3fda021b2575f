//! TLS between the programs of a cluster: who vouches for whom, and which connections have to be TLS.
//!
//! - [`authority`]: the cluster's own certificate authority, which the controller has.
//! - [`leaf`]: a program's key and its certificate.
//! - [`validity`]: PURE: for how long, and when to renew.
//! - [`trust`]: the certificate of the authority as others have it, and what it vouches for.
//! - [`door`]: per connection, TLS or plain HTTP; [`incoming`]: a listener behind one. [`stream`] is either.
//! - [`files`]: what is kept on disk: whole or not there.
//!
//! The controller keeps `ca-key.pem` and `ca.pem` (in `<data_dir>/tls/`), an agent `key.pem` and `certificate.pem`.
//!
//! Deliberately absent: client certificates. Who asks shows a token; who answers shows a certificate.

pub mod authority;
pub mod door;
pub mod files;
pub mod incoming;
pub mod leaf;
pub mod stream;
pub mod trust;
pub mod validity;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use serde::{Deserialize, Serialize};

pub use self::{
    authority::Authority,
    door::{Door, Plain},
    incoming::Incoming,
    leaf::{Certificates, Leaf},
    stream::Stream,
    trust::Trust,
    validity::Validity,
};

/// Where packages have the certificate of the cluster's authority.
pub const CA_FILE: &str = "/etc/tucano/ca.pem";

/// Whether connections to other machines are TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    On,
    /// They are plain HTTP: something else protects them, such as a VPN.
    Off,
}

/// What cannot be done about keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What a file holds.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A request for a certificate that makes no sense.
    #[error("not a request for a certificate: {0}")]
    Request(String),
    /// A certificate or key is of no use here.
    #[error("{0}")]
    Unusable(String),
}

/// The one place that chooses the cryptography of all programs: ring. Again is fine.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been first, with the same choice.
        drop(ring::default_provider().install_default());
    }
}

fn provider() -> Arc<CryptoProvider> {
    install_provider();
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()))
}
