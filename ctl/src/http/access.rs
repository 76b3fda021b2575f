//! Which callers may use which route: the one table of the API.
//!
//! | route | anonymous | sysadmin's token | agents' token | `controller` | `node:<name>` | `balancer:<name>` |
//! |---|---|---|---|---|---|---|
//! | `/healthz` | yes | yes | yes | yes | yes | yes |
//! | `POST /v1/reports` | | | legacy nodes | | its own | |
//! | `GET /v1/names` | | | legacy nodes | | its own | |
//! | `POST /v1/certificates` | | | from the node's address | | its own | |
//! | `POST /v1/secret_values` | | | on this machine | | its own | |
//! | `GET /v2/tucano/images/blobs/…` | | yes | legacy nodes | | its own | |
//! | `GET /v1/routes`, `POST /v1/balancer_reports` | | yes | | | | yes |
//! | `POST /v1/balancer_certificates` | | yes | | | | its own |
//! | everything else | | yes | | | | |
//!
//! A balancer's certificate counts while its name is one of `api.balancers`.
//!
//! Without a configured token, programs on this machine count as its holder, on loopback listeners (see [`super::auth`]).

use axum::http::Method;
use tucano_api::IMAGES_REPOSITORY;
use tucano_tls::Identity;

/// A verified caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Without credentials.
    Anonymous,
    /// With the sysadmin's token.
    Sysadmin,
    /// With the agents' token.
    AgentToken,
    /// With a certificate of the cluster's authority.
    Certificate(Identity),
}

/// The classes of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Liveness.
    Everyone,
    /// Reports of agents, and what they are told of services.
    Reports,
    /// Enrolment and renewal of certificates.
    Certificates,
    /// Values of secrets that agents fetch.
    SecretValues,
    /// The registry's blobs that agents fetch.
    Blobs,
    /// The balancers' routes, reports and certificates.
    Routes,
    /// The rest of the registry.
    Registry,
    /// The rest of the API.
    Sysadmin,
}

impl Access {
    /// The class of a request. What is not listed is the sysadmin's.
    pub fn of(method: &Method, path: &str) -> Self {
        let blob = path
            .strip_prefix("/v2/")
            .and_then(|path| path.strip_prefix(IMAGES_REPOSITORY))
            .and_then(|path| path.strip_prefix("/blobs/"));
        match path {
            // HEAD would defer the blob's removal, and agents do not need it.
            _ if method == Method::GET && blob.is_some_and(|blob| !blob.contains('/')) => {
                Self::Blobs
            }
            "/healthz" => Self::Everyone,
            // A node reports itself, and reads the services that its processes need.
            "/v1/reports" | "/v1/names" => Self::Reports,
            "/v1/certificates" => Self::Certificates,
            "/v1/secret_values" => Self::SecretValues,
            "/v1/routes" | "/v1/balancer_reports" | "/v1/balancer_certificates" => Self::Routes,
            "/v2" => Self::Registry,
            _ if path.starts_with("/v2/") => Self::Registry,
            _ => Self::Sysadmin,
        }
    }

    /// The table. Reports, certificates, values of secrets and blobs are further limited to what is the node's own.
    pub fn allows(self, caller: &Caller) -> bool {
        use Identity::{Balancer, Node};
        matches!(
            (self, caller),
            (Self::Everyone, _)
                | (
                    Self::Reports | Self::Certificates | Self::SecretValues | Self::Blobs,
                    Caller::AgentToken | Caller::Certificate(Node(_))
                )
                | (Self::Routes, Caller::Certificate(Balancer(_)))
                | (
                    Self::Blobs | Self::Routes | Self::Registry | Self::Sysadmin,
                    Caller::Sysadmin
                )
        )
    }
}

#[cfg(test)]
mod tests;
