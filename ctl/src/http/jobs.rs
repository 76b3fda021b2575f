//! Jobs and runs: shows them, begins runs and stops them.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, http::StatusCode};
use tucano_api::{
    error::ErrorBody,
    ids::ServiceName,
    jobs::{JobView, Run, RunRequest},
    service::job::command_problem,
};
use tucano_planner::{Cluster, Event};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, agents, errors::ApiError, extract::PathParam};
use crate::state_loop::TransactError;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(runs, begin))
        .routes(routes!(run, stop))
}

/// All jobs.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs",
    responses((status = 200, body = Vec<JobView>)))]
async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<JobView>>, ApiError> {
    Ok(Json(api.state.query(|cluster| cluster.jobs()).await?))
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{name}", tag = "jobs",
    params(("name" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = ErrorBody)))]
async fn show(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Result<Json<JobView>, ApiError> {
    let missing = ApiError::not_found(format!("there is no job {name}"));
    let job = api.state.query(move |cluster| cluster.job(&name)).await?;
    job.map(Json).ok_or(missing)
}

/// The runs of a job that are kept, the newest first; of a service, its hooks and the commands that were run in its image.
#[utoipa::path(get, path = "/v1/jobs/{name}/runs", tag = "jobs",
    params(("name" = String, Path)),
    responses((status = 200, body = Vec<Run>), (status = 404, body = ErrorBody)))]
async fn runs(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
) -> Result<Json<Vec<Run>>, ApiError> {
    let missing = unknown(&name);
    let query = move |cluster: &Cluster| {
        let is_known = cluster.service(&name).is_some();
        is_known.then(|| cluster.runs(&name))
    };
    api.state.query(query).await?.map(Json).ok_or(missing)
}

/// Begins a run of a job, or of a command in a job's or service's image. `GET /v1/jobs/{name}/runs/{number}` tells what becomes of it.
#[utoipa::path(post, path = "/v1/jobs/{name}/runs", tag = "jobs",
    params(("name" = String, Path)),
    request_body = RunRequest,
    responses(
        (status = 202, description = "It is recorded", body = Run),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It cannot be begun", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn begin(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    body: Body,
) -> Result<(StatusCode, Json<Run>), ApiError> {
    let body = agents::read(&api, "the request", body).await?;
    let asked: RunRequest = match body.is_empty() {
        true => RunRequest::default(),
        false => serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request("invalid_body", error.to_string()))?,
    };
    if let Some(problem) = asked.command.as_deref().and_then(command_problem) {
        return Err(ApiError::bad_request("invalid_command", problem));
    }
    let decide = move |cluster: &Cluster| {
        if cluster.service(&name).is_none() {
            return Err(unknown(&name));
        }
        let command = asked.command;
        if asked.once && command.is_some() {
            let message = "once: is for the job's own command: leave `command` out";
            return Err(ApiError::bad_request("invalid_command", message));
        }
        if asked.once
            && let Some(number) = cluster.run_of_revision(&name)
        {
            return Ok((Event::Tick, (name, number)));
        }
        if let Some(obstacle) = cluster.run_obstacle(&name, command.as_deref()) {
            let conflict = ApiError::new(StatusCode::CONFLICT, "run_not_begun", obstacle);
            return Err(conflict);
        }
        let number = cluster.next_run(&name);
        let service = name.clone();
        Ok((Event::RunRequested { service, command }, (name, number)))
    };
    let begun = api
        .state
        .transact(decide, |cluster, (name, number)| cluster.run(&name, number));
    let begun = begun.await.map_err(TransactError::into_inner)?;
    let missing = || ApiError::not_found("the run was not begun: its service is gone".to_owned());
    Ok((StatusCode::ACCEPTED, Json(begun.ok_or_else(missing)?)))
}

/// One run.
#[utoipa::path(get, path = "/v1/jobs/{name}/runs/{number}", tag = "jobs",
    params(("name" = String, Path), ("number" = u64, Path)),
    responses((status = 200, body = Run), (status = 404, body = ErrorBody)))]
async fn run(
    State(api): State<Arc<Api>>,
    PathParam((name, number)): PathParam<(ServiceName, u64)>,
) -> Result<Json<Run>, ApiError> {
    let missing = no_such_run(&name, number);
    let query = move |cluster: &Cluster| cluster.run(&name, number);
    api.state.query(query).await?.map(Json).ok_or(missing)
}

/// Stops a run: its processes get SIGTERM. One that has ended stays as it is.
#[utoipa::path(delete, path = "/v1/jobs/{name}/runs/{number}", tag = "jobs",
    params(("name" = String, Path), ("number" = u64, Path)),
    responses(
        (status = 200, description = "It is being stopped", body = Run),
        (status = 404, body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn stop(
    State(api): State<Arc<Api>>,
    PathParam((name, number)): PathParam<(ServiceName, u64)>,
) -> Result<Json<Run>, ApiError> {
    let missing = no_such_run(&name, number);
    let decide = move |cluster: &Cluster| match cluster.run(&name, number) {
        None => Err(no_such_run(&name, number)),
        Some(_) => {
            let service = name.clone();
            Ok((Event::RunStopped { service, number }, (name, number)))
        }
    };
    let stopped = api
        .state
        .transact(decide, |cluster, (name, number)| cluster.run(&name, number));
    let stopped = stopped.await.map_err(TransactError::into_inner)?;
    stopped.map(Json).ok_or(missing)
}

fn unknown(name: &ServiceName) -> ApiError {
    ApiError::not_found(format!("there is no job and no service {name}"))
}

fn no_such_run(name: &ServiceName, number: u64) -> ApiError {
    ApiError::not_found(format!(
        "there is no run {number} of {name}: `tucano jobs {name}` shows those that are kept"
    ))
}
