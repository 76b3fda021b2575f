//! `deploy`: uploads a service, and follows its processes until they are healthy.

use tucano_api::{service::ServiceConfig, state::Deployed};

use super::application;
use crate::{
    Error,
    args::{self, Global, Wait},
    client::Client,
    image::Source,
    output, watch,
};

/// Where services are deployed.
const SERVICES: &str = "/v1/services";

pub(super) async fn run(
    client: &Client,
    global: &Global,
    arguments: &args::Deploy,
) -> Result<(), Error> {
    if let Some(application) = application::find(arguments)? {
        if arguments.if_changed_from.is_some() {
            let message = format!(
                "--if-changed-from is for one service, and {} has several",
                arguments.file.display()
            );
            return Err(Error::Usage(message));
        }
        return application::run(client, global, arguments, application).await;
    }
    let source = Source::of_service(&arguments.file, arguments.image.as_deref())?;
    let path = match arguments.if_changed_from {
        Some(revision) => format!("{SERVICES}?if_revision={revision}"),
        None => SERVICES.to_owned(),
    };
    let deployed = configure(client, &source, &path).await?;
    finish(client, global, deployed, arguments.wait).await
}

/// Waits for what the controller has configured by its answer, and reports it.
pub(super) async fn finish_answer(
    client: &Client,
    global: &Global,
    answer: &str,
    wait: Wait,
) -> Result<(), Error> {
    finish(client, global, client.parse(answer)?, wait).await
}

async fn finish(
    client: &Client,
    global: &Global,
    deployed: Deployed,
    wait: Wait,
) -> Result<(), Error> {
    let (deployed, result) = settle(client, deployed, wait).await;
    report(global, deployed, result)
}

/// Uploads and waits. The inner result is an error where the service is configured, but its processes are not healthy.
pub(crate) async fn deploy(
    client: &Client,
    source: &Source,
    wait: Wait,
) -> Result<(Deployed, Result<(), Error>), Error> {
    let deployed = configure(client, source, SERVICES).await?;
    Ok(settle(client, deployed, wait).await)
}

/// Uploads what the controller does not have, and sends the configuration to this path of its API.
async fn configure(client: &Client, source: &Source, path: &str) -> Result<Deployed, Error> {
    announce(&source.config);
    let source = source.with_mounts_uploaded(client).await?;
    let answer = match source.form(client).await? {
        Some(form) => client.upload(path, form).await?,
        None => client.deploy(path, source.text.clone()).await?,
    };
    let deployed: Deployed = client.parse(&answer)?;
    say(&deployed);
    Ok(deployed)
}

/// What is to be known of an update before it begins.
pub(super) fn announce(config: &ServiceConfig) {
    if !config.volume.is_empty() {
        output::status(&format!(
            "{} has volumes: each process that is replaced is stopped before the next one starts, one slot at a time",
            config.name
        ));
    }
}

/// Says what was configured, with the controller's warnings.
pub(super) fn say(deployed: &Deployed) {
    output::status(&summary(deployed));
    for warning in &deployed.warnings {
        output::status(&format!("warning: {warning}"));
    }
}

fn summary(deployed: &Deployed) -> String {
    let Deployed { name, revision, .. } = deployed;
    let image = deployed.image.short();
    match deployed.changed {
        true => format!("{name} is configured: revision {revision}, image {image}"),
        false => format!(
            "{name} is unchanged: revision {revision} already has this configuration and image {image}"
        ),
    }
}

/// Waits until what was configured is healthy, unless `wait` says otherwise.
pub(super) async fn settle(
    client: &Client,
    mut deployed: Deployed,
    wait: Wait,
) -> (Deployed, Result<(), Error>) {
    if wait.no_wait {
        return (deployed, Ok(()));
    }
    let result =
        watch::until_healthy(client, &deployed.name, deployed.revision, wait.timeout).await;
    deployed.healthy = Some(result.is_ok());
    if let Err(Error::NotHealthy { message, failures }) = &result {
        deployed.error = Some(message.clone());
        deployed.code = Some("not_healthy".to_owned());
        deployed.failures.clone_from(failures);
    }
    (deployed, result.map(drop))
}

/// Prints one line, or the controller's answer as JSON; returns the error of waiting.
pub(super) fn report(
    global: &Global,
    deployed: Deployed,
    result: Result<(), Error>,
) -> Result<(), Error> {
    let is_complete = matches!(result, Ok(()) | Err(Error::NotHealthy { .. }));
    if global.json && is_complete {
        let json = serde_json::to_string(&deployed)
            .map_err(|error| Error::Controller(error.to_string().into()))?;
        output::data(&json)?;
    } else if !global.json && result.is_ok() {
        let state = match (deployed.changed, deployed.healthy) {
            (true, Some(true)) => "healthy",
            (true, _) => "configured",
            (false, Some(true)) => "unchanged and healthy",
            (false, _) => "unchanged",
        };
        output::data(&format!(
            "{} revision {} is {state}",
            deployed.name, deployed.revision
        ))?;
    }
    result
}
