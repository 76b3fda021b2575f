//! Secrets: what the controller shows of them, and how their values come to the agents of the workers that need them.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{NodeName, Revision, SecretName, ServiceName},
    units::Timestamp,
};

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// Its newest version, counted from 1.
    pub version: u64,
    /// When that version was set.
    pub set_at: Timestamp,
    /// The revisions that have it, of all services.
    pub users: Vec<SecretUser>,
}

/// A revision that has a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretUser {
    /// The service.
    pub service: ServiceName,
    /// The revision.
    pub revision: Revision,
    /// Whether that is the service's current revision. Earlier ones can be rolled back to.
    pub current: bool,
    /// The version of the secret that it has.
    pub version: u64,
}

impl fmt::Display for SecretUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.current {
            true => write!(f, "{}", self.service),
            false => write!(f, "revision {} of {}", self.revision, self.service),
        }
    }
}

/// Answer to `PUT /v1/secrets/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretStored {
    /// Its name.
    pub name: SecretName,
    /// Its newest version.
    pub version: u64,
    /// Whether that version is new. The same value again is none.
    pub changed: bool,
    /// The services that get a new revision with it.
    pub services: Vec<ServiceName>,
}

/// One version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct SecretVersion {
    /// The secret.
    pub name: SecretName,
    /// The version.
    pub version: u64,
}

impl fmt::Display for SecretVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (version {})", self.name, self.version)
    }
}

/// An agent asks for values that its processes need: body of `POST /v1/secret_values` on the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretValuesRequest {
    /// As in reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// As in reports.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Which ones.
    pub secrets: Vec<SecretVersion>,
}

/// Answer to a [`SecretValuesRequest`], in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretValues {
    /// The values.
    pub values: Vec<SecretValue>,
}

/// A value, in Base64 (RFC 4648, section 4). It is not shown when it is printed for debugging.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct SecretValue(pub String);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_printed() {
        let values = SecretValues {
            values: vec![SecretValue("aGlkZGVu".to_owned())],
        };
        assert!(!format!("{values:?}").contains("aGlkZGVu"));
    }
}
