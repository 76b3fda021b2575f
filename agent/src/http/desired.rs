//! `PUT /v1/desired`: the whole desired set of this node.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use serde::Serialize;
use tucano_api::{agent::DesiredSet, ids::Generation, settings::Validate};

use super::{Api, ApiError};
use crate::runner::DesiredSetError;

/// Response to an accepted desired set.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    /// The generation that is now stored on the node.
    generation: Generation,
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Accepted>, ApiError> {
    let body = body.map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            _ => "bad_request",
        };
        ApiError::new(rejection.status(), code, rejection)
    })?;
    let set = parse(&body, api.limits.processes)?;
    let generation = api.runner.desire(set).await?;
    Ok(Json(Accepted { generation }))
}

/// Parses and validates a desired set; code past this point relies on it.
fn parse(body: &[u8], most: usize) -> Result<DesiredSet, ApiError> {
    let bad =
        |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_desired_set", message);
    let set: DesiredSet = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is not a desired set: {error}")))?;
    if set.processes.len() > most {
        let count = set.processes.len();
        return Err(bad(format!(
            "{count} processes exceed this agent's limit of {most} (limits.processes)"
        )));
    }
    let mut ids = BTreeSet::new();
    for process in &set.processes {
        if !ids.insert(&process.id) {
            return Err(bad(format!("{} is listed twice", process.id)));
        }
        process.config.validate().map_err(|problem| {
            bad(format!(
                "{}: {}: {}",
                process.id, problem.key, problem.message
            ))
        })?;
    }
    Ok(set)
}

impl From<DesiredSetError> for ApiError {
    fn from(error: DesiredSetError) -> Self {
        let status = match &error {
            DesiredSetError::NotStored(_) => StatusCode::INSUFFICIENT_STORAGE,
            DesiredSetError::Ending => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.code(), error)
    }
}

#[cfg(test)]
mod tests;
