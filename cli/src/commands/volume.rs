//! `volume`: shows, moves and removes volumes.

use std::time::Duration;

use tucano_api::{
    error::ErrorBody,
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
        Volume::Move {
            volume,
            to,
            no_wait,
        } => move_to(client, global, volume, to, *no_wait).await,
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

/// Those of one name: it is on two workers while it is moved.
pub(super) async fn named(client: &Client, id: &VolumeId) -> Result<Vec<VolumeView>, Error> {
    let mut volumes: Vec<VolumeView> = client.get("/v1/volumes").await?;
    volumes.retain(|it| it.volume.id == *id);
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

/// Time between two looks at a volume.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);

async fn move_to(
    client: &Client,
    global: &Global,
    volume: &VolumeId,
    to: &NodeName,
    no_wait: bool,
) -> Result<(), Error> {
    let slot = format!("{}/{}", volume.service_name(), volume.slot());
    output::status(&format!(
        "slot {slot} has no process until its volumes are on {to}; Ctrl-C leaves the move going"
    ));
    let body = serde_json::json!({ "to": to }).to_string();
    let answer = client
        .post(&format!("/v1/volumes/{volume}/move"), body)
        .await?;
    if !no_wait {
        until_moved(client, volume, to).await?;
    }
    if global.json {
        return output::data(&answer);
    }
    output::data(&match no_wait {
        true => format!("volume {volume} is being moved to {to}"),
        false => format!("volume {volume} is on {to}"),
    })
}

/// Waits until a volume is on a worker, and reports each change.
async fn until_moved(client: &Client, volume: &VolumeId, to: &NodeName) -> Result<(), Error> {
    let mut said = String::new();
    loop {
        let own = named(client, volume).await?;
        let moving = own.iter().find_map(|it| it.moving.as_ref());
        let is_there = |it: &&VolumeView| it.node == *to && it.state != VolumeState::Creating;
        let (there, here) = (
            own.iter().find(is_there),
            own.iter().find(|it| it.node != *to),
        );
        let line = match moving {
            Some(moving) if moving.to == *to => table::moving_text(moving),
            Some(moving) => {
                let message = format!("volume {volume} is being moved to {} instead", moving.to);
                return Err(not_moved(message));
            }
            None if there.is_some() && here.is_none() => return Ok(()),
            None if own.iter().any(|it| it.node == *to) => {
                format!("whole on {to}: the earlier copy is being removed")
            }
            None => {
                let message = format!(
                    "volume {volume} was not moved to {to} and stays where it is: the controller's alert says why"
                );
                return Err(not_moved(message));
            }
        };
        if line != said {
            output::status(&line);
            said = line;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn not_moved(error: String) -> Error {
    Error::Refused(ErrorBody::new("volume_not_moved", error).into())
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
