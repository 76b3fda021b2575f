//! The cluster's state, read-only.

use std::sync::Arc;

use axum::{Json, extract::State as FromState};
use tucano_api::{
    error::ErrorBody,
    ids::{NodeName, ServiceName},
    state::{
        ActiveService, AliveNode, ConfiguredService, DeadNode, NodeCondition, NodeView, State,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError, extract::PathParam};

type Answer<T> = Result<Json<T>, ApiError>;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(state))
        .routes(routes!(alive_nodes))
        .routes(routes!(alive_node))
        .routes(routes!(dead_nodes))
        .routes(routes!(dead_node))
        .routes(routes!(configured_services))
        .routes(routes!(configured_service))
        .routes(routes!(active_services))
        .routes(routes!(active_service))
        .routes(routes!(nodes))
}

/// Whether the state loop answers.
#[utoipa::path(get, path = "/healthz", tag = "state", responses((status = 200, body = String)))]
async fn healthz(FromState(api): FromState<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.state.query(|_| ()).await?;
    Ok("ok\n")
}

/// The controller's run-time state.
#[utoipa::path(get, path = "/v1/state", tag = "state", responses((status = 200, body = State)))]
async fn state(FromState(api): FromState<Arc<Api>>) -> Answer<State> {
    read(&api, |state| state).await
}

/// Workers whose lease has not expired.
#[utoipa::path(get, path = "/v1/alive_nodes", tag = "state",
    responses((status = 200, body = Vec<AliveNode>)))]
async fn alive_nodes(FromState(api): FromState<Arc<Api>>) -> Answer<Vec<AliveNode>> {
    read(&api, |state| state.alive_nodes).await
}

/// One entry of the list.
#[utoipa::path(get, path = "/v1/alive_nodes/{name}", tag = "state",
    params(("name" = String, Path)),
    responses((status = 200, body = AliveNode), (status = 404, body = ErrorBody)))]
async fn alive_node(
    FromState(api): FromState<Arc<Api>>,
    PathParam(name): PathParam<NodeName>,
) -> Answer<AliveNode> {
    let missing = format!("node {name} is not alive");
    find(
        &api,
        missing,
        |state| state.alive_nodes,
        move |node| node.name == name,
    )
    .await
}

/// Workers that died and could not be restarted.
#[utoipa::path(get, path = "/v1/dead_nodes", tag = "state",
    responses((status = 200, body = Vec<DeadNode>)))]
async fn dead_nodes(FromState(api): FromState<Arc<Api>>) -> Answer<Vec<DeadNode>> {
    read(&api, |state| state.dead_nodes).await
}

/// One entry of the list.
#[utoipa::path(get, path = "/v1/dead_nodes/{name}", tag = "state",
    params(("name" = String, Path)),
    responses((status = 200, body = DeadNode), (status = 404, body = ErrorBody)))]
async fn dead_node(
    FromState(api): FromState<Arc<Api>>,
    PathParam(name): PathParam<NodeName>,
) -> Answer<DeadNode> {
    let missing = format!("node {name} is not dead");
    find(
        &api,
        missing,
        |state| state.dead_nodes,
        move |node| node.name == name,
    )
    .await
}

/// Every configured service.
#[utoipa::path(get, path = "/v1/configured_services", tag = "state",
    responses((status = 200, body = Vec<ConfiguredService>)))]
async fn configured_services(
    FromState(api): FromState<Arc<Api>>,
) -> Answer<Vec<ConfiguredService>> {
    read(&api, |state| state.configured_services).await
}

/// One entry of the list.
#[utoipa::path(get, path = "/v1/configured_services/{name}", tag = "state",
    params(("name" = String, Path)),
    responses((status = 200, body = ConfiguredService), (status = 404, body = ErrorBody)))]
async fn configured_service(
    FromState(api): FromState<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Answer<ConfiguredService> {
    let missing = format!("there is no service {name}");
    find(
        &api,
        missing,
        |state| state.configured_services,
        move |s| s.name == name,
    )
    .await
}

/// The running processes of the configured services.
#[utoipa::path(get, path = "/v1/active_services", tag = "state",
    responses((status = 200, body = Vec<ActiveService>)))]
async fn active_services(FromState(api): FromState<Arc<Api>>) -> Answer<Vec<ActiveService>> {
    read(&api, |state| state.active_services).await
}

/// One entry of the list.
#[utoipa::path(get, path = "/v1/active_services/{name}", tag = "state",
    params(("name" = String, Path)),
    responses((status = 200, body = ActiveService), (status = 404, body = ErrorBody)))]
async fn active_service(
    FromState(api): FromState<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Answer<ActiveService> {
    let missing = format!("there is no service {name}");
    find(
        &api,
        missing,
        |state| state.active_services,
        move |s| s.name == name,
    )
    .await
}

/// All nodes of the topology, the controller's first.
#[utoipa::path(get, path = "/v1/nodes", tag = "state",
    responses((status = 200, body = Vec<NodeView>)))]
async fn nodes(FromState(api): FromState<Arc<Api>>) -> Answer<Vec<NodeView>> {
    let ctl = &api.config.current().topology.ctl;
    let mut nodes = vec![NodeView {
        labels: Default::default(),
        hold: None,
        name: ctl.name.clone(),
        ip: ctl.ip,
        condition: NodeCondition::Ctl,
        since: api.started_at,
        reason: None,
        alive: None,
    }];
    nodes.extend(api.state.query(|cluster| cluster.nodes()).await?);
    Ok(Json(nodes))
}

async fn read<T: Send + 'static>(
    api: &Api,
    pick: impl FnOnce(State) -> T + Send + 'static,
) -> Answer<T> {
    Ok(Json(
        api.state.query(|cluster| pick(cluster.state())).await?,
    ))
}

async fn find<T: Send + 'static>(
    api: &Api,
    missing: String,
    pick: impl FnOnce(State) -> Vec<T> + Send + 'static,
    is_it: impl Fn(&T) -> bool + Send + 'static,
) -> Answer<T> {
    let found = api
        .state
        .query(move |cluster| pick(cluster.state()).into_iter().find(is_it))
        .await?;
    found.map(Json).ok_or_else(|| ApiError::not_found(missing))
}
