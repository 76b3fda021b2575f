//! Follows the controller's route table and caches it in a file for starts without a controller; [`report`] tells the
//! controller which processes are drained.

pub mod cache;
pub mod certificate;
pub mod controller;
pub mod poll;
pub mod report;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};
use tucano_api::routes::RouteTable;

use crate::{errors::chain, plane::DataPlane};
use cache::Cache;
use controller::Controller;

/// Pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause. Attempts are cheap, and a new controller is noticed quickly.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Follows the controller's routes.
#[derive(Debug)]
pub struct Follower {
    plane: Arc<DataPlane>,
    controller: Controller,
    cache: Option<Cache>,
    version: Option<String>,
}

impl Follower {
    /// Puts the cached table in force, if there is one.
    pub fn start(plane: Arc<DataPlane>, controller: Controller, cache: Option<Cache>) -> Self {
        let mut follower = Self {
            plane,
            controller,
            cache,
            version: None,
        };
        follower.load();
        follower
    }

    /// Polls the controller forever. While it does not answer, the last table stays in force.
    pub async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let limit = self.plane.limits.table_len();
        loop {
            match poll::poll(&self.controller, self.version.as_deref(), limit).await {
                Ok(table) => {
                    if pause > PAUSE_MIN {
                        info!("the controller answers again");
                    }
                    pause = PAUSE_MIN;
                    if let Some(table) = table {
                        self.apply(table).await;
                    }
                }
                Err(error) => {
                    if pause == PAUSE_MIN {
                        let cause = chain(&error);
                        warn!(%cause, "the controller does not answer; the last routes stay in force");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn apply(&mut self, table: RouteTable) {
        info!(version = %table.version, services = table.services.len(), "new routes");
        self.version = Some(table.version.clone());
        self.plane.publish(table.clone());
        let Some(cache) = self.cache.clone() else {
            return;
        };
        // A failure only matters for a restart without a controller.
        match tokio::task::spawn_blocking(move || cache.store(&table)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(cause = %chain(&error), "cannot cache the routes"),
            Err(error) => warn!(%error, "cannot cache the routes"),
        }
    }

    fn load(&mut self) {
        let Some(cache) = &self.cache else { return };
        match cache.load(self.plane.limits.table_len()) {
            Ok(Some(table)) => {
                info!(version = %table.version, "cached routes are in force until the controller answers");
                self.version = Some(table.version.clone());
                self.plane.publish(table);
            }
            Ok(None) => {}
            Err(error) => warn!(cause = %chain(&error), "ignoring the cached routes"),
        }
    }
}
