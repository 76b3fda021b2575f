//! `volume`: shows and removes volumes.

use std::time::Duration;

use tucano_api::{
    ids::{NodeName, ServiceName, VolumeId},
    state::{VolumeState, VolumeView},
};

use super::backup;
use crate::{
    Error,
    args::{Global, Volume},
    client::Client,
    output,
    table::{self, Style},
};

pub(super) async fn run(client: &Client, global: &Global, command: &Volume) -> Result<(), Error> {
    match command {
        Volume::Ls => list(client, global).await,
        Volume::Backup { volume, wait } => backup::back_up(client, global, volume, *wait).await,
        Volume::Backups { volume } => backup::list(client, global, volume).await,
        Volume::Restore(restore) => backup::restore(client, global, restore).await,
        Volume::Rm { volume, on, yes } => remove(client, global, volume, on.as_ref(), *yes).await,
    }
}

/// The volumes of a service, without those that are only left on a worker.
pub(super) async fn of_service(
    client: &Client,
    service: &ServiceName,
) -> Result<Vec<VolumeView>, Error> {
    let mut volumes: Vec<VolumeView> = client.get("/v1/volumes").await?;
    volumes.retain(|it| {
        it.volume.id.service_name() == service.as_str() && it.state != VolumeState::Orphan
    });
    Ok(volumes)
}

/// The names of volumes, for a sentence.
pub(super) fn names(volumes: &[VolumeView]) -> String {
    let names: Vec<String> = volumes.iter().map(|it| it.volume.id.to_string()).collect();
    names.join(", ")
}

async fn list(client: &Client, global: &Global) -> Result<(), Error> {
    let text = client.get_text("/v1/volumes").await?;
    if global.json {
        return output::data(&text);
    }
    let volumes: Vec<VolumeView> = client.parse(&text)?;
    output::data(&table::volumes(&volumes, Style::of_stdout()))
}

async fn remove(
    client: &Client,
    global: &Global,
    volume: &VolumeId,
    node: Option<&NodeName>,
    yes: bool,
) -> Result<(), Error> {
    let on = node.map(|node| format!(" on {node}")).unwrap_or_default();
    output::confirm(
        &format!("remove volume {volume}{on} with all that is in it"),
        yes,
    )?;
    let path = match node {
        Some(node) => format!("/v1/volumes/{volume}?node={node}"),
        None => format!("/v1/volumes/{volume}"),
    };
    let answer = client.delete(&path, Duration::ZERO).await?;
    if global.json {
        return output::data(&answer);
    }
    output::data(&format!("volume {volume}{on} is being removed"))
}
