//! TLS between the programs of a cluster: authority, certificates, and which connections must be TLS.
//!
//! - [`authority`]: the cluster's certificate authority, on the controller.
//! - [`identity`]: the role and name in a certificate's subject.
//! - [`leaf`]: a program's key and its certificate.
//! - [`validity`]: PURE: validity periods and renewal.
//! - [`trust`]: the authority's certificate as other programs have it, and verification with it.
//! - [`linger`]: lingering close.
//! - [`sniff`]: TLS or plain HTTP on one port; [`incoming`]: a listener with it. [`stream`] is either.
//! - [`files`]: atomic files.
//!
//! The controller keeps `ca-key.pem` and `ca.pem` (in `<data_dir>/tls/`), an agent `key.pem` and `certificate.pem`.
//!
//! Certificates are for both directions: a program presents the same one as a server and as a client. What an identity may
//! do is decided beside each router, not here.

pub mod authority;
pub mod files;
pub mod identity;
pub mod incoming;
pub mod leaf;
pub mod linger;
pub mod sniff;
pub mod stream;
pub mod trust;
pub mod validity;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use serde::{Deserialize, Serialize};

pub use rustls::ClientConfig;

pub use self::{
    authority::Authority,
    identity::Identity,
    incoming::Incoming,
    leaf::{Certificates, Leaf},
    linger::Lingering,
    sniff::{PlainHttp, ProtocolSniffer},
    stream::Stream,
    trust::Trust,
    validity::Validity,
};

/// Where packages expect the certificate of the cluster's authority.
pub const CA_FILE: &str = "/etc/tucano/ca.pem";

/// Whether connections to other machines are TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They must be.
    On,
    /// Plain HTTP: something else protects the network, such as a VPN.
    Off,
}

/// Failed operations on keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file's content.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A certificate cannot be issued.
    #[error("cannot issue a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A malformed certificate signing request.
    #[error("not a certificate signing request: {0}")]
    Request(String),
    /// A certificate or key is not usable here.
    #[error("{0}")]
    Unusable(String),
}

/// Installs the cryptography provider of all programs, ring. Idempotent.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have installed the same provider.
        drop(ring::default_provider().install_default());
    }
}

fn provider() -> Arc<CryptoProvider> {
    install_provider();
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(ring::default_provider()))
}
