//! The OpenAPI document, generated from the handlers, so that no route is missing.

use std::sync::Arc;

use axum::{Json, Router, routing::MethodRouter, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    Api, adoption, agents, applications, backups, balancers, config, exec, images, jobs, logs,
    metrics, names, secrets, services, state, volumes,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tucano controller",
        description = "Deploys services and shows the cluster's state. Every error's body has `error`, a message for people, and `code`, for programs."
    ),
    modifiers(&BearerToken),
    security(("token" = [])),
    tags(
        (name = "services", description = "Services and their configuration"),
        (name = "jobs", description = "Jobs, and what runs to completion"),
        (name = "secrets", description = "Secrets, without their values"),
        (name = "state", description = "The cluster's state"),
        (name = "volumes", description = "Volumes of services, which outlive them"),
        (name = "adoption", description = "Taking over what runs on nodes on hold"),
        (name = "logs", description = "Output of processes"),
        (name = "controller", description = "The controller itself"),
        (name = "agents", description = "For the workers' agents")
    )
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// All routes, and the document that describes them.
pub fn documented() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(services::routes())
        .merge(applications::routes())
        .merge(images::routes())
        .merge(jobs::routes())
        .merge(adoption::routes())
        .merge(balancers::routes())
        .merge(secrets::routes())
        .merge(state::routes())
        .merge(backups::routes())
        .merge(volumes::routes())
        .merge(logs::routes())
        .merge(exec::routes())
        .merge(config::routes())
        .merge(metrics::routes())
        .merge(agents::routes())
        .merge(names::routes())
        .split_for_parts()
}

/// Serves the document.
pub fn serve(document: Arc<utoipa::openapi::OpenApi>) -> MethodRouter<Arc<Api>> {
    get(move || {
        let document = document.clone();
        async move { Json(document.as_ref().clone()) }
    })
}
