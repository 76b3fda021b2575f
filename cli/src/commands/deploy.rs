//! `deploy`: uploads a service, and follows its processes until they are healthy.

use tucano_api::state::Deployed;

use crate::{
    Error,
    args::{self, Global, Wait},
    client::Client,
    image::Source,
    output, watch,
};

pub(super) async fn run(
    client: &Client,
    global: &Global,
    arguments: &args::Deploy,
) -> Result<(), Error> {
    let source = Source::of_service(&arguments.file, arguments.image.as_deref())?;
    let (deployed, result) = deploy(client, &source, arguments.wait).await?;
    report(global, deployed, result)
}

/// Uploads and waits. An error of the second kind means that the deploy stands, but its processes are not healthy.
pub(crate) async fn deploy(
    client: &Client,
    source: &Source,
    wait: Wait,
) -> Result<(Deployed, Result<(), Error>), Error> {
    let answer = match source.form(client).await? {
        Some(form) => client.upload("/v1/services", form).await?,
        None => client.deploy("/v1/services", source.text.clone()).await?,
    };
    let deployed: Deployed = client.parse(&answer)?;
    output::talk(&format!(
        "{} is configured: revision {}, image {}",
        deployed.name,
        deployed.revision,
        deployed.image.short()
    ));
    for warning in &deployed.warnings {
        output::talk(&format!("warning: {warning}"));
    }
    Ok(settle(client, deployed, wait).await)
}

/// Waits for what was configured, if it is to be waited for.
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
    if let Err(error @ Error::NotHealthy(_)) = &result {
        deployed.error = Some(error.to_string());
        deployed.code = Some("not_healthy".to_owned());
    }
    (deployed, result.map(drop))
}

/// One line, or the controller's answer for programs; then the failure, if there was one.
pub(super) fn report(
    global: &Global,
    deployed: Deployed,
    result: Result<(), Error>,
) -> Result<(), Error> {
    if global.json {
        let json = serde_json::to_string(&deployed)
            .map_err(|error| Error::Controller(error.to_string()))?;
        output::data(&json)?;
    } else if result.is_ok() {
        let state = if deployed.healthy == Some(true) {
            "healthy"
        } else {
            "configured"
        };
        output::data(&format!(
            "{} revision {} is {state}",
            deployed.name, deployed.revision
        ))?;
    }
    result
}
