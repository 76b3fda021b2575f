//! Images, as far as those who configure services ask.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ids::Digest, service::ImageHealth};

/// An image to describe: body of `POST /v1/images/describe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageQuery {
    /// Its name or digest, as in a service's configuration. It is pulled where the controller does not have it.
    pub image: String,
    /// The registry in which it is looked for if it is named without one and the controller does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_registry: Option<String>,
}

/// What an image says of its processes. What it does not say is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDescription {
    /// The name that it was found by.
    pub name: String,
    /// Digest of its manifest; none where it was read from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Program and first arguments (`Entrypoint`).
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Further arguments (`Cmd`).
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Ports (`ExposedPorts`), such as `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// The user of its processes.
    #[serde(default)]
    pub user: String,
    /// Paths that are to be kept (`Volumes`).
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The working directory.
    #[serde(default)]
    pub working_dir: String,
    /// The signal that ends a process.
    #[serde(default)]
    pub stop_signal: String,
    /// The health check (`Healthcheck`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ImageHealth>,
}
