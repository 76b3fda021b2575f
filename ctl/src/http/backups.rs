//! Backs volumes up, and restores them.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, http::StatusCode};
use tucano_api::{error::ErrorBody, state::VolumeRestore, volumes::Snapshot};
use tucano_planner::{Cluster, Event, Restoration};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, agents,
    errors::ApiError,
    extract::PathParam,
    volumes::{unknown, volume_id},
};
use crate::state_loop::TransactError;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(back_up))
        .routes(routes!(restore))
}

/// The backups of a volume that the controller knows of, oldest first. Its repository may have more.
#[utoipa::path(get, path = "/v1/volumes/{service}/{name}/{slot}/backups", tag = "volumes",
    params(("service" = String, Path), ("name" = String, Path), ("slot" = u32, Path)),
    responses((status = 200, body = Vec<Snapshot>), (status = 404, body = ErrorBody)))]
async fn list(
    State(api): State<Arc<Api>>,
    PathParam(path): PathParam<(String, String, String)>,
) -> Result<Json<Vec<Snapshot>>, ApiError> {
    let id = volume_id(path)?;
    let query = move |cluster: &Cluster| {
        let backups = cluster.backups(&id);
        let is_known = cluster.has_volume(&id) || !backups.is_empty();
        is_known.then_some(backups).ok_or(id)
    };
    let backups = api.state.query(query).await?;
    Ok(Json(backups.map_err(|id| unknown(&id))?))
}

/// Backs a volume up now. `GET /v1/volumes` tells when it is done.
#[utoipa::path(post, path = "/v1/volumes/{service}/{name}/{slot}/backup", tag = "volumes",
    params(("service" = String, Path), ("name" = String, Path), ("slot" = u32, Path)),
    responses(
        (status = 202, description = "It is being backed up"),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It cannot be backed up now", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn back_up(
    State(api): State<Arc<Api>>,
    PathParam(path): PathParam<(String, String, String)>,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    let id = volume_id(path)?;
    let decide = move |cluster: &Cluster| {
        if !cluster.has_volume(&id) {
            return Err(unknown(&id));
        }
        match cluster.backup_obstacle(&id) {
            Some(obstacle) => Err(conflict("volume_not_backed_up", obstacle)),
            None => Ok((Event::BackupRequested { id }, ())),
        }
    };
    let done = api.state.transact(decide, |_, ()| ()).await;
    done.map_err(TransactError::into_inner)?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

/// Gives a volume the content of a backup. Its slot has no process meanwhile. `GET /v1/volumes` tells when it is done.
#[utoipa::path(post, path = "/v1/volumes/{service}/{name}/{slot}/restore", tag = "volumes",
    params(("service" = String, Path), ("name" = String, Path), ("slot" = u32, Path)),
    request_body = VolumeRestore,
    responses(
        (status = 202, description = "It is being restored"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It cannot be restored so", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn restore(
    State(api): State<Arc<Api>>,
    PathParam(path): PathParam<(String, String, String)>,
    body: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    let body = agents::read(&api, "the restoration", body).await?;
    let asked: VolumeRestore = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("invalid_body", error.to_string()))?;
    let restoration = Restoration {
        id: volume_id(path)?,
        from: asked.from,
        on: asked.on,
        lost: asked.lost,
        replace: asked.replace,
    };
    let decide = move |cluster: &Cluster| match cluster.restore_obstacle(&restoration) {
        Some(obstacle) => Err(conflict("volume_not_restored", obstacle)),
        None => Ok((Event::VolumeRestored(restoration), ())),
    };
    let done = api.state.transact(decide, |_, ()| ()).await;
    done.map_err(TransactError::into_inner)?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

fn conflict(code: &'static str, obstacle: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code, obstacle)
}
