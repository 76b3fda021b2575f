//! `volume backup`, `volume backups` and `volume restore`.

use std::time::Instant;

use tucano_api::{
    ids::VolumeId,
    state::{BackupView, VolumeRestore, VolumeView},
    volumes::Snapshot,
};

use super::volume::{INTERVAL, named};
use crate::{
    Error,
    args::{Global, Restore, Wait},
    client::Client,
    output,
    table::{self, Style},
};

/// Backs a volume up, and waits until that is done.
pub(super) async fn back_up(
    client: &Client,
    global: &Global,
    volume: &VolumeId,
    wait: Wait,
) -> Result<(), Error> {
    let before = last(client, volume).await?;
    let answer = client
        .post(&format!("/v1/volumes/{volume}/backup"), String::new())
        .await?;
    if wait.no_wait {
        return match global.json {
            true => output::data(&answer),
            false => output::data(&format!("volume {volume} is being backed up")),
        };
    }
    let begun = Instant::now();
    loop {
        let now = last(client, volume).await?;
        if now.number > before.number && now.ordered_at.is_none() {
            return ended(global, volume, now);
        }
        pause(
            begun,
            wait,
            "the backup goes on: `tucano volume ls` shows it",
        )
        .await?;
    }
}

/// Shows the backups of a volume.
pub(super) async fn list(client: &Client, global: &Global, volume: &VolumeId) -> Result<(), Error> {
    let text = client
        .get_text(&format!("/v1/volumes/{volume}/backups"))
        .await?;
    if global.json {
        return output::data(&text);
    }
    let backups: Vec<Snapshot> = client.parse(&text)?;
    output::data(&table::backups(&backups, Style::of_stdout()))
}

/// Restores a volume, and waits until its process has it.
pub(super) async fn restore(
    client: &Client,
    global: &Global,
    asked: &Restore,
) -> Result<(), Error> {
    let volume = &asked.volume;
    if asked.replace {
        let what = format!("replace volume {volume}, with all that is in it, by a backup");
        output::confirm(&what, asked.yes)?;
    }
    if let Some(node) = &asked.lost {
        let what = format!(
            "give up the volume {volume} on {node}: what is written there since the backup is not used again"
        );
        output::confirm(&what, asked.yes)?;
    }
    let body = VolumeRestore {
        from: asked.from.clone(),
        on: asked.on.clone(),
        lost: asked.lost.clone(),
        replace: asked.replace,
    };
    let body = serde_json::to_string(&body).unwrap_or_default();
    let answer = client
        .post(&format!("/v1/volumes/{volume}/restore"), body)
        .await?;
    if asked.wait.no_wait {
        return match global.json {
            true => output::data(&answer),
            false => output::data(&format!("volume {volume} is being restored")),
        };
    }
    let begun = Instant::now();
    loop {
        let view = view(client, volume).await?;
        match &view.restoring {
            None => {
                return match global.json {
                    true => output::data(&serde_json::to_string(&view).unwrap_or_default()),
                    false => output::data(&format!("volume {volume} is restored on {}", view.node)),
                };
            }
            Some(restoring) => {
                if let Some(problem) = &restoring.problem {
                    let message = format!("volume {volume} is not restored: {problem}");
                    return Err(Error::Controller(message.into()));
                }
            }
        }
        pause(
            begun,
            asked.wait,
            "the restoration goes on: `tucano volume ls` shows it",
        )
        .await?;
    }
}

fn ended(global: &Global, volume: &VolumeId, backup: BackupView) -> Result<(), Error> {
    if let Some(error) = backup.error {
        let message = format!("volume {volume} is not backed up: {error}");
        return Err(Error::Controller(message.into()));
    }
    let Some(last) = backup.last else {
        return Ok(());
    };
    if global.json {
        return output::data(&serde_json::to_string(&last).unwrap_or_default());
    }
    output::data(&format!(
        "volume {volume} is backed up: {} in {}, which grew by {} ({})",
        last.bytes,
        last.location,
        last.added,
        table::consistency(last.consistency)
    ))
}

async fn last(client: &Client, volume: &VolumeId) -> Result<BackupView, Error> {
    let view = view(client, volume).await?;
    Ok(view.backup.unwrap_or(BackupView {
        last: None,
        number: 0,
        ordered_at: None,
        failed_at: None,
        error: None,
        next: None,
    }))
}

async fn view(client: &Client, volume: &VolumeId) -> Result<VolumeView, Error> {
    let mut own = named(client, volume).await?.into_iter();
    let first = own.next();
    let kept = own.find(|it| it.restoring.is_some() || it.backup.is_some());
    kept.or(first).ok_or_else(|| {
        let message = format!("there is no volume {volume}: `tucano volume ls` shows all");
        Error::NotFound(message.into())
    })
}

async fn pause(begun: Instant, wait: Wait, goes_on: &str) -> Result<(), Error> {
    if begun.elapsed() > wait.timeout {
        let timeout = tucano_api::units::Span(wait.timeout);
        return Err(Error::NotHealthy {
            message: format!("not done after {timeout}; {goes_on}"),
            failures: Vec::new(),
        });
    }
    tokio::time::sleep(INTERVAL).await;
    Ok(())
}
