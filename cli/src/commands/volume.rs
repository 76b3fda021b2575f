//! `volume`: shows and removes volumes.

use std::time::Duration;

use tucano_api::{
    ids::{ServiceName, VolumeId},
    state::VolumeView,
};

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
        Volume::Rm { volume, yes } => remove(client, global, volume, *yes).await,
    }
}

/// The volumes of a service.
pub(super) async fn of_service(
    client: &Client,
    service: &ServiceName,
) -> Result<Vec<VolumeView>, Error> {
    let mut volumes: Vec<VolumeView> = client.get("/v1/volumes").await?;
    volumes.retain(|it| it.volume.id.service_name() == service.as_str());
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
    yes: bool,
) -> Result<(), Error> {
    output::confirm(
        &format!("remove volume {volume} with all that is in it"),
        yes,
    )?;
    let path = format!("/v1/volumes/{volume}");
    let answer = client.delete(&path, Duration::ZERO).await?;
    if global.json {
        return output::data(&answer);
    }
    output::data(&format!("volume {volume} is being removed"))
}
