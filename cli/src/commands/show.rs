//! `ps`, `services`, `revisions`, `nodes`, `state`: tables, or the API's JSON.

use tucano_api::{
    ids::ServiceName,
    state::{ConfiguredService, NodeView, ServiceView},
};

use crate::{
    Error,
    args::Global,
    client::Client,
    output,
    table::{self, Style},
};

pub(super) async fn processes(
    client: &Client,
    global: &Global,
    service: Option<&ServiceName>,
) -> Result<(), Error> {
    let path = match service {
        Some(name) => format!("/v1/services/{name}"),
        None => "/v1/services".to_owned(),
    };
    let text = client.get_text(&path).await?;
    if global.json {
        return output::data(&text);
    }
    let services: Vec<ServiceView> = match service {
        Some(_) => vec![client.parse(&text)?],
        None => client.parse(&text)?,
    };
    output::data(&table::processes(&services, Style::of_stdout()))
}

pub(super) async fn services(client: &Client, global: &Global) -> Result<(), Error> {
    let text = client.get_text("/v1/services").await?;
    if global.json {
        return output::data(&text);
    }
    let services: Vec<ServiceView> = client.parse(&text)?;
    output::data(&table::services(&services, Style::of_stdout()))
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
