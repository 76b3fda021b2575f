//! `ps`, `services`, `revisions`, `nodes`, `state`: tables, or the API's JSON.

use tucano_api::{
    error::ErrorBody,
    ids::{AppName, ServiceName},
    state::{ConfiguredService, NodeView, ServiceView},
};

use crate::{
    Error,
    args::Global,
    client::Client,
    output,
    table::{self, Style},
};

/// The processes of one service.
pub(super) async fn service(
    client: &Client,
    global: &Global,
    name: &ServiceName,
) -> Result<(), Error> {
    let text = client.get_text(&format!("/v1/services/{name}")).await?;
    if global.json {
        return output::data(&text);
    }
    let services = [client.parse(&text)?];
    output::data(&table::processes(&services, Style::of_stdout()))
}

/// The processes of all services, or of an application's.
pub(super) async fn processes(
    client: &Client,
    global: &Global,
    app: Option<&AppName>,
) -> Result<(), Error> {
    show_services(client, global, app, table::processes).await
}

/// All services, or an application's.
pub(super) async fn services(
    client: &Client,
    global: &Global,
    app: Option<&AppName>,
) -> Result<(), Error> {
    show_services(client, global, app, table::services).await
}

/// One service, whom its processes may reach, and whose may reach it.
pub(super) async fn paths(
    client: &Client,
    global: &Global,
    name: &ServiceName,
) -> Result<(), Error> {
    // All of them: only they know who needs this one.
    let all: Vec<ServiceView> = client.get("/v1/services").await?;
    let found = all.iter().find(|it| it.configured.name == *name);
    let Some(service) = found else {
        let body = ErrorBody::new("not_found", format!("there is no service {name}"));
        return Err(Error::NotFound(body.into()));
    };
    if global.json {
        let needing = all.iter().map(|it| &it.configured);
        let needing = needing.filter(|it| it.config.needs.contains(name));
        let needing: Vec<&ServiceName> = needing.map(|it| &it.name).collect();
        let json = serde_json::json!({
            "service": service,
            "may_reach": service.configured.config.needs,
            "may_be_reached_by": needing,
        });
        return output::data(&json.to_string());
    }
    let style = Style::of_stdout();
    output::data(&table::services(std::slice::from_ref(service), style))?;
    output::data(&format!("\n{}", table::paths(service, &all, style)))
}

async fn show_services(
    client: &Client,
    global: &Global,
    app: Option<&AppName>,
    table: fn(&[ServiceView], Style) -> String,
) -> Result<(), Error> {
    let text = client.get_text("/v1/services").await?;
    if global.json {
        return match app {
            None => output::data(&text),
            Some(app) => output::data(&of_app(client.parse(&text)?, app)),
        };
    }
    let mut services: Vec<ServiceView> = client.parse(&text)?;
    services.retain(|it| app.is_none() || it.configured.config.app.as_ref() == app);
    output::data(&table(&services, Style::of_stdout()))
}

/// The services of an application, as the API's JSON: keys that this version does not know stay.
fn of_app(services: Vec<serde_json::Value>, app: &AppName) -> String {
    let belongs = |service: &serde_json::Value| {
        service["configured"]["config"]["app"].as_str() == Some(app.as_str())
    };
    serde_json::Value::Array(services.into_iter().filter(belongs).collect()).to_string()
}

pub(super) async fn revisions(
    client: &Client,
    global: &Global,
    name: &ServiceName,
) -> Result<(), Error> {
    let text = client
        .get_text(&format!("/v1/services/{name}/revisions"))
        .await?;
    if global.json {
        return output::data(&text);
    }
    let revisions: Vec<ConfiguredService> = client.parse(&text)?;
    output::data(&table::revisions(&revisions, Style::of_stdout()))
}

pub(super) async fn nodes(client: &Client, global: &Global) -> Result<(), Error> {
    let text = client.get_text("/v1/nodes").await?;
    if global.json {
        return output::data(&text);
    }
    let nodes: Vec<NodeView> = client.parse(&text)?;
    output::data(&table::nodes(&nodes, Style::of_stdout()))
}

/// The state has no table: it is printed as indented JSON.
pub(super) async fn state(client: &Client) -> Result<(), Error> {
    let state: serde_json::Value = client.get("/v1/state").await?;
    output::data(&format!("{state:#}"))
}
