//! `PUT /v1/desired`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use serde::Serialize;
use tucano_api::{agent::DesiredSet, ids::Generation, settings::Validate};

use super::{Api, Refusal};
use crate::runner::Refused;

/// Answer to a desired set.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    /// The generation that the agent holds now.
    generation: Generation,
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Held>, Refusal> {
    let body = body.map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            _ => "bad_request",
        };
        Refusal::new(rejection.status(), code, rejection)
    })?;
    let set = understand(&body, api.limits.processes)?;
    let generation = api.runner.desire(set).await?;
    Ok(Json(Held { generation }))
}

/// Parses and checks a desired set; past this point nothing re-checks.
fn understand(body: &[u8], most: usize) -> Result<DesiredSet, Refusal> {
    let bad =
        |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_desired_set", message);
    let set: DesiredSet = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is no desired set: {error}")))?;
    if set.processes.len() > most {
        let count = set.processes.len();
        return Err(bad(format!(
            "{count} processes are more than this agent takes: {most} (limits.processes)"
        )));
    }
    let mut ids = BTreeSet::new();
    for process in &set.processes {
        if !ids.insert(&process.id) {
            return Err(bad(format!("{} is there twice", process.id)));
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

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (status, code) = match &refused {
            Refused::Stale { .. } => (StatusCode::CONFLICT, "stale_generation"),
            Refused::WrongNode { .. } => (StatusCode::CONFLICT, "wrong_node"),
            Refused::NotKept(_) => (StatusCode::INSUFFICIENT_STORAGE, "not_kept"),
            Refused::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
        };
        Self::new(status, code, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(ids: &[&str], port: u16) -> Vec<u8> {
        let processes: Vec<_> = ids
            .iter()
            .map(|id| {
                serde_json::json!({
                    "id": id, "revision": 1, "image": format!("sha256:{}", "0".repeat(64)),
                    "config": { "name": "a", "concurrency": 1, "port": port },
                })
            })
            .collect();
        serde_json::json!({ "node": "w1", "generation": 2, "processes": processes })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_desired_set_is_understood() {
        let set = understand(&body(&["a-1", "a-2"], 80), 2).unwrap();
        assert_eq!((set.generation, set.processes.len()), (Generation(2), 2));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (body, most, part) in [
            (b"{".to_vec(), 9, "no desired set"),
            (body(&["a-1", "a-1"], 80), 9, "a-1 is there twice"),
            (body(&["a-1"], 0), 9, "a-1: port"),
            (body(&["a-1", "a-2"], 80), 1, "limits.processes"),
            (body(&["../a-1"], 80), 9, "process id"),
        ] {
            let refusal = understand(&body, most).unwrap_err();
            assert_eq!(refusal.0, StatusCode::BAD_REQUEST);
            assert!(refusal.1.error.contains(part), "{}", refusal.1.error);
        }
    }
}
