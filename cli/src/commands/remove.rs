//! `rm`: removes a service.

use tucano_api::{
    ids::{AppName, ServiceName},
    service::ServiceConfig,
    state::ServiceView,
    units::Span,
};

use super::{application, volume};
use crate::{
    Error,
    args::{Global, Wait},
    client::Client,
    output,
};

/// Whether the volumes are removed too, and whether to ask before.
#[derive(Clone, Copy)]
pub(super) struct Volumes {
    pub(super) remove: bool,
    pub(super) yes: bool,
}

pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: &ServiceName,
    volumes: Volumes,
    wait: Wait,
) -> Result<(), Error> {
    let kept = match volumes.remove {
        true => {
            confirm(client, name, volumes.yes).await?;
            Vec::new()
        }
        // A controller of an earlier version has no volumes.
        false => volume::of_service(client, name).await.unwrap_or_default(),
    };
    let mut query = Vec::new();
    if !wait.no_wait {
        let timeout = Span(wait.timeout).as_millis();
        query.push(format!("wait=true&timeout={timeout}ms"));
    }
    if volumes.remove {
        query.push("volumes=true".to_owned());
    }
    let query = match query.is_empty() {
        true => String::new(),
        false => format!("?{}", query.join("&")),
    };
    let path = format!("/v1/services/{name}{query}");
    let answer = client.delete(&path, wait.timeout).await?;
    if !kept.is_empty() {
        output::status(&format!(
            "its volumes are kept: {}. `tucano volume rm` removes one with all that is in it",
            volume::names(&kept)
        ));
    }
    if global.json {
        return output::data(&answer);
    }
    output::data(&format!("{name} is removed"))
}

/// Removes all services of an application: those first that others do not need.
pub(super) async fn all(
    client: &Client,
    global: &Global,
    app: &AppName,
    volumes: Volumes,
    wait: Wait,
) -> Result<(), Error> {
    let services: Vec<ServiceView> = client.get("/v1/services").await?;
    let configs = services.into_iter().map(|it| it.configured.config);
    let own: Vec<ServiceConfig> = configs.filter(|it| it.app.as_ref() == Some(app)).collect();
    if own.is_empty() {
        let message = format!("there is no service of an application {app}");
        return Err(Error::NotFound(message.into()));
    }
    let mut names = application::ordered(&own);
    names.reverse();
    for name in names {
        run(client, global, &name, volumes, wait).await?;
    }
    Ok(())
}

async fn confirm(client: &Client, name: &ServiceName, yes: bool) -> Result<(), Error> {
    let volumes = volume::of_service(client, name).await?;
    if volumes.is_empty() {
        return Ok(());
    }
    let names = volume::names(&volumes);
    output::confirm(
        &format!("remove service {name} and its volumes {names} with all that is in them"),
        yes,
    )
}
