//! Shows, moves and removes volumes.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, http::StatusCode};
use tucano_api::{
    error::ErrorBody,
    ids::{NodeName, VolumeId},
    state::{VolumeMove, VolumeView},
};
use tucano_planner::{Cluster, Event};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    errors::ApiError,
    extract::{PathParam, QueryParams},
};
use crate::{body, state_loop::TransactError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(remove))
        .routes(routes!(move_to))
}

/// Which of the volumes of a name is removed.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// The one that this worker has and no record tells of (state `orphan`).
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
}

/// Every volume, ordered by name, also those of services that are not configured any more, and those that workers have and no record
/// tells of.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes",
    responses((status = 200, body = Vec<VolumeView>)))]
async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<VolumeView>>, ApiError> {
    Ok(Json(api.state.query(Cluster::volumes).await?))
}

/// Removes a volume with all that is in it. Refused while a process has it, or its service needs it.
#[utoipa::path(delete, path = "/v1/volumes/{service}/{name}/{slot}", tag = "volumes",
    params(("service" = String, Path), ("name" = String, Path), ("slot" = u32, Path), Removal),
    responses(
        (status = 200, description = "It is being removed"),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It is in use", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn remove(
    State(api): State<Arc<Api>>,
    PathParam((service, name, slot)): PathParam<(String, String, String)>,
    QueryParams(asked): QueryParams<Removal>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let id = volume_id((service, name, slot))?;
    let decide = move |cluster: &Cluster| match asked.node {
        Some(node) => remove_orphan(cluster, id, node),
        None => remove_known(cluster, id),
    };
    let removed = api.state.transact(decide, |_, ()| ()).await;
    removed.map_err(TransactError::into_inner)?;
    Ok(Json(serde_json::json!({})))
}

/// The volume that a path names.
pub(super) fn volume_id(path: (String, String, String)) -> Result<VolumeId, ApiError> {
    let (service, name, slot) = path;
    let id = format!("{service}/{name}/{slot}").parse();
    id.map_err(|error| ApiError::not_found(format!("{error}")))
}

/// Moves the volumes of a slot to another worker, or gives that up where they are to stay. The slot has no process meanwhile.
#[utoipa::path(post, path = "/v1/volumes/{service}/{name}/{slot}/move", tag = "volumes",
    params(("service" = String, Path), ("name" = String, Path), ("slot" = u32, Path)),
    request_body = VolumeMove,
    responses(
        (status = 200, description = "They are being moved: `GET /v1/volumes` says how far that is"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "They cannot be moved", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn move_to(
    State(api): State<Arc<Api>>,
    PathParam(path): PathParam<(String, String, String)>,
    body: Body,
) -> Result<Json<serde_json::Value>, ApiError> {
    let id = volume_id(path)?;
    let limits = api.config.current().limits.clone();
    let text = body::read(
        "the request",
        body,
        ("limits.config_bytes", limits.config_bytes),
        limits.body_idle.0,
    )
    .await?;
    let asked: VolumeMove = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("not a JSON object such as {{\"to\": \"w2\"}}: {error}");
        ApiError::bad_request("bad_request", message)
    })?;
    let decide = move |cluster: &Cluster| {
        if !cluster.has_volume(&id) {
            return Err(unknown(&id));
        }
        match cluster.move_obstacle(&id, &asked.to) {
            Some(obstacle) => Err(ApiError::new(
                StatusCode::CONFLICT,
                "volume_not_movable",
                obstacle,
            )),
            None => Ok((Event::VolumeMoved { id, to: asked.to }, ())),
        }
    };
    let moved = api.state.transact(decide, |_, ()| ()).await;
    moved.map_err(TransactError::into_inner)?;
    Ok(Json(serde_json::json!({})))
}

pub(super) fn unknown(id: &VolumeId) -> ApiError {
    let message = format!("there is no volume {id}: `GET /v1/volumes` lists all volumes");
    ApiError::not_found(message)
}

fn remove_known(cluster: &Cluster, id: VolumeId) -> Result<(Event, ()), ApiError> {
    if !cluster.has_volume(&id) {
        return Err(unknown(&id));
    }
    match cluster.volume_obstacle(&id) {
        Some(obstacle) => Err(conflict(obstacle)),
        None => Ok((Event::VolumeRemoved { id }, ())),
    }
}

fn remove_orphan(cluster: &Cluster, id: VolumeId, node: NodeName) -> Result<(Event, ()), ApiError> {
    if !cluster.has_orphan(&id, &node) {
        let message = format!(
            "{node} has no volume {id} without a record: `GET /v1/volumes` lists all volumes"
        );
        return Err(ApiError::not_found(message));
    }
    match cluster.orphan_obstacle(&id, &node) {
        Some(obstacle) => Err(conflict(obstacle)),
        None => Ok((Event::OrphanRemoved { id, node }, ())),
    }
}

fn conflict(obstacle: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "volume_in_use", obstacle)
}
