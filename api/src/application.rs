//! Services that are deployed together.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

#[allow(unused_imports, reason = "the schema names it")]
use crate::service::ServiceConfig;

/// An application to deploy, all of it or nothing: body of `POST /v1/applications`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationDeploy {
    /// The configurations of its services, each with an `image` that the controller has or can pull. They may need each other.
    #[schema(value_type = Vec<ServiceConfig>)]
    pub services: Vec<Value>,
    /// The registry in which an image is looked for that is named without a registry and that the controller does not have;
    /// none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_registry: Option<String>,
}
