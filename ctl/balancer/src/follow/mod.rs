//! The route table: followed on the controller's socket, kept in a file for when there is no controller.

pub mod cache;
pub mod poll;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};
use tucano_api::routes::RouteTable;

use crate::{errors::chain, plane::Plane};
use cache::Cache;

/// Pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a new controller is noticed soon, and the attempts cost next to nothing.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Follows the controller's routes.
#[derive(Debug)]
pub struct Follower {
    plane: Arc<Plane>,
    socket: PathBuf,
    cache: Option<Cache>,
    version: Option<String>,
}

impl Follower {
    /// Puts the kept table in force, if there is one. `socket` is the controller's.
    pub fn start(plane: Arc<Plane>, socket: PathBuf, cache: Option<Cache>) -> Self {
        let mut follower = Self {
            plane,
            socket,
            cache,
            version: None,
        };
        follower.load();
        follower
    }

    /// Takes each new table from the controller, for ever. While it does not answer, the last one stays.
    pub async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let limit = self.plane.limits.table_len();
        loop {
            match poll::poll(&self.socket, self.version.as_deref(), limit).await {
                Ok(table) => {
                    if pause > PAUSE_MIN {
                        info!("the controller answers again");
                    }
                    pause = PAUSE_MIN;
                    if let Some(table) = table {
                        self.adopt(table).await;
                    }
                }
                Err(error) => {
                    if pause == PAUSE_MIN {
                        let cause = chain(&error);
                        warn!(%cause, "no routes from the controller, going on with the last ones");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn adopt(&mut self, table: RouteTable) {
        info!(version = %table.version, services = table.services.len(), "new routes");
        self.version = Some(table.version.clone());
        self.plane.publish(table.clone());
        let Some(cache) = self.cache.clone() else {
            return;
        };
        // Only a restart without controller needs the file: to serve goes on without it.
        match tokio::task::spawn_blocking(move || cache.store(&table)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(cause = %chain(&error), "the routes are not kept"),
            Err(error) => warn!(%error, "the routes are not kept"),
        }
    }

    fn load(&mut self) {
        let Some(cache) = &self.cache else { return };
        match cache.load(self.plane.limits.table_len()) {
            Ok(Some(table)) => {
                info!(version = %table.version, "kept routes are in force until the controller answers");
                self.version = Some(table.version.clone());
                self.plane.publish(table);
            }
            Ok(None) => {}
            Err(error) => warn!(cause = %chain(&error), "the kept routes are of no use"),
        }
    }
}
