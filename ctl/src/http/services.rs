//! Deploys, shows, changes and removes services.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tucano_api::{
    error::ErrorBody,
    ids::{Revision, ServiceName},
    rollout::{self, Failure, LOG_LINES},
    state::{ConfiguredService, Deployed, ServicePatch, ServiceView},
    units::Span,
};
use tucano_planner::Cluster;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, audit,
    errors::ApiError,
    extract::{PathParam, QueryParams, Wait},
    logs,
};
use crate::{
    body,
    deployer::{Outcome, wait},
};

/// How long a healthy deploy waits for the balancer to fetch the routes.
const ROUTES_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, deploy))
        .routes(routes!(show, change, remove))
        .routes(routes!(revisions))
        .routes(routes!(roll_back))
        .routes(routes!(restart))
}

/// The parts of a deploy.
#[derive(utoipa::ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request's body in the OpenAPI document"
)]
struct DeployForm {
    /// The static configuration, TOML or JSON.
    config: String,
    /// Image archive; optional if `config` names an image that is stored or can be pulled. If it holds several images,
    /// `config` comes first, and its `image` names one of them.
    #[schema(format = Binary)]
    image: Option<String>,
    /// Overrides the `image` of `config`: `name:tag`, `name@sha256:…` or `sha256:…` of a stored image, or a reference to
    /// another registry.
    stored_image: Option<String>,
}

/// All services.
#[utoipa::path(get, path = "/v1/services", tag = "services",
    responses((status = 200, body = Vec<ServiceView>)))]
async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<ServiceView>>, ApiError> {
    Ok(Json(api.state.query(|cluster| cluster.services()).await?))
}

/// Deploys a service: a multipart body with the parts `config` and `image` in either order, or only the configuration if
/// it names a stored image or one of another registry.
#[utoipa::path(post, path = "/v1/services", tag = "services", params(Change),
    request_body(content = DeployForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Configured an existing service", body = Deployed),
        (status = 201, description = "Configured a new service", body = Deployed),
        (status = 400, description = "Configuration or image are invalid", body = ErrorBody),
        (status = 408, body = ErrorBody),
        (status = 409, description = "Another service uses the host, or `if_revision` is not the newest revision", body = ErrorBody),
        (status = 413, description = "A part is too large", body = ErrorBody),
        (status = 404, description = "No registry has the image", body = ErrorBody),
        (status = 422, description = "The image cannot run here, no worker can ever run a process, or its registry is not listed or refuses access", body = ErrorBody),
        (status = 429, description = "Too many uploads at once", body = ErrorBody),
        (status = 502, description = "The other registry cannot be reached or sends malformed answers", body = ErrorBody),
        (status = 503, description = "Configured, but not healthy in time", body = Deployed),
        (status = 504, description = "The other registry took longer than limits.pull", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn deploy(
    State(api): State<Arc<Api>>,
    QueryParams(asked): QueryParams<Change>,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::new(asked.wait, asked.timeout);
    let max_wait = wait.max_wait(api.config.current().limits.wait)?;
    let uploaded = api.deployer.receive(request).await?;
    let expected = asked.if_revision.map(Revision);
    let outcome = api.deployer.deploy(uploaded, expected).await?;
    answer(&api, outcome, max_wait).await
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path)),
    responses((status = 200, body = ServiceView), (status = 404, body = ErrorBody)))]
async fn show(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Result<Json<ServiceView>, ApiError> {
    api.service(&name).await.map(Json)
}

/// Changes keys of a service's configuration, which creates a new revision; `null` resets a key to its default.
#[utoipa::path(patch, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path), Change),
    request_body(content = Object, description = "Keys of the static configuration"),
    responses(
        (status = 200, body = Deployed),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody),
        (status = 503, description = "Changed, but not healthy in time", body = Deployed),
        (status = 507, body = ErrorBody)))]
async fn change(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    QueryParams(asked): QueryParams<Change>,
    body: Body,
) -> Result<Response, ApiError> {
    let wait = Wait::new(asked.wait, asked.timeout);
    let limits = api.config.current().limits.clone();
    let max_wait = wait.max_wait(limits.wait)?;
    let text = body::read(
        "the change",
        body,
        ("limits.config_bytes", limits.config_bytes),
        limits.body_idle.0,
    )
    .await?;
    let patch: ServicePatch = serde_json::from_slice(&text).map_err(|error| {
        let message =
            format!("not a JSON object of keys to change, such as {{\"concurrency\": 3}}: {error}");
        ApiError::bad_request("invalid_config", message)
    })?;
    let expected = asked.if_revision.map(Revision);
    let outcome = api.deployer.patch(name, patch, expected).await?;
    answer(&api, outcome, max_wait).await
}

/// The revisions of a service that are kept, oldest first; the last one is current.
#[utoipa::path(get, path = "/v1/services/{name}/revisions", tag = "services",
    params(("name" = String, Path)),
    responses((status = 200, body = Vec<ConfiguredService>), (status = 404, body = ErrorBody)))]
async fn revisions(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Result<Json<Vec<ConfiguredService>>, ApiError> {
    let missing = ApiError::not_found(format!("there is no service {name}"));
    let query = move |cluster: &Cluster| cluster.revisions(&name);
    let revisions = api.state.query(query).await?;
    match revisions.is_empty() {
        true => Err(missing),
        false => Ok(Json(revisions)),
    }
}

/// Creates a new revision equal to an earlier one: `revision`, or else the last that differs from the current one.
#[utoipa::path(post, path = "/v1/services/{name}/rollback", tag = "services",
    params(("name" = String, Path), RollBack),
    responses(
        (status = 200, body = Deployed),
        (status = 404, description = "No such service, or revision of it", body = ErrorBody),
        (status = 409, description = "Another service uses the host now", body = ErrorBody),
        (status = 503, description = "Rolled back, but not healthy in time", body = Deployed),
        (status = 507, body = ErrorBody)))]
async fn roll_back(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    QueryParams(asked): QueryParams<RollBack>,
) -> Result<Response, ApiError> {
    let wait = Wait::new(asked.wait, asked.timeout);
    let max_wait = wait.max_wait(api.config.current().limits.wait)?;
    let revision = asked.revision.map(Revision);
    let outcome = api.deployer.roll_back(name, revision).await?;
    answer(&api, outcome, max_wait).await
}

/// For which revision a change is, and whether to wait.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Change {
    /// Change nothing unless this is the newest revision, 0 if there is to be no such service; `revision_changed` otherwise.
    if_revision: Option<u64>,
    /// Answer when it has come about.
    wait: bool,
    /// At most for so long; 120s when absent.
    #[param(value_type = Option<String>)]
    timeout: Option<Span>,
}

/// Replaces all processes of a service by new ones of the same revision, as a rollout does it.
#[utoipa::path(post, path = "/v1/services/{name}/restart", tag = "services",
    params(("name" = String, Path), Wait),
    responses(
        (status = 200, body = Deployed),
        (status = 404, body = ErrorBody),
        (status = 409, description = "A job, which has no processes between its runs", body = ErrorBody),
        (status = 503, description = "Begun, but not healthy in time", body = Deployed),
        (status = 507, body = ErrorBody)))]
async fn restart(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    QueryParams(wait): QueryParams<Wait>,
) -> Result<Response, ApiError> {
    let max_wait = wait.max_wait(api.config.current().limits.wait)?;
    let outcome = api.deployer.restart(name).await?;
    answer(&api, outcome, max_wait).await
}

/// The revision to roll back to, and whether to wait.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct RollBack {
    /// Its number.
    revision: Option<u64>,
    /// Answer when it has come about.
    wait: bool,
    /// At most for so long; 120s when absent.
    #[param(value_type = Option<String>)]
    timeout: Option<Span>,
}

/// Whether the volumes are removed too, and whether to wait.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// Remove its volumes with all that is in them; they are kept otherwise.
    volumes: bool,
    /// Answer when no node runs any of its processes.
    wait: bool,
    /// At most for so long; 120s when absent.
    #[param(value_type = Option<String>)]
    timeout: Option<Span>,
}

/// Removes a service; `wait=true` waits until no node runs any of its processes. Its volumes are kept, unless `volumes=true`.
#[utoipa::path(delete, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path), Removal),
    responses(
        (status = 200, description = "Removed"),
        (status = 404, body = ErrorBody),
        (status = 503, description = "Removed, but some process still runs", body = ErrorBody)))]
async fn remove(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    QueryParams(asked): QueryParams<Removal>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let wait = Wait::new(asked.wait, asked.timeout);
    let max_wait = wait.max_wait(api.config.current().limits.wait)?;
    api.deployer.remove(name.clone(), asked.volumes).await?;
    if let Some(max_wait) = max_wait
        && !wait::until_gone(&api.state, &name, max_wait).await?
    {
        let left = {
            let name = name.clone();
            api.state
                .query(move |cluster| cluster.existing(&name))
                .await?
        };
        let left: Vec<String> = left
            .iter()
            .map(|(node, process)| format!("{process} on {node}"))
            .collect();
        let message = format!(
            "{name} is removed, but some of its processes still run: {}",
            left.join("; ")
        );
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_gone",
            message,
        ));
    }
    Ok(Json(serde_json::json!({})))
}

/// Answers a deploy or a change, after waiting if requested.
async fn answer(
    api: &Api,
    mut outcome: Outcome,
    max_wait: Option<std::time::Duration>,
) -> Result<Response, ApiError> {
    if let Some(max_wait) = max_wait {
        outcome = wait::until_healthy(&api.state, outcome, max_wait).await?;
        if outcome.deployed.healthy == Some(false) {
            outcome.deployed.failures = failures(api, &outcome.deployed.name).await;
        }
        // A client that waited sends requests next.
        api.discovery
            .until_followed(ROUTES_TIMEOUT.min(max_wait))
            .await;
    }
    let status = match (outcome.deployed.healthy, outcome.is_new) {
        (Some(false), _) => StatusCode::SERVICE_UNAVAILABLE,
        (_, true) => StatusCode::CREATED,
        (_, false) => StatusCode::OK,
    };
    let deployed = outcome.deployed;
    let details = audit::Details(format!(
        "{} revision {} image {}{}",
        deployed.name,
        deployed.revision,
        deployed.image,
        if deployed.changed { "" } else { ", unchanged" }
    ));
    let mut response = (status, Json::<Deployed>(deployed)).into_response();
    response.extensions_mut().insert(details);
    Ok(response)
}

/// Why processes of a service are not healthy, with the last lines of their output.
async fn failures(api: &Api, name: &ServiceName) -> Vec<Failure> {
    let Ok(view) = api.service(name).await else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for process in rollout::failing(&view) {
        let id = &process.report.id;
        let log = logs::last_lines(api, &process.node, id, LOG_LINES).await;
        failures.push(Failure::new(&view, process, log));
    }
    failures
}
