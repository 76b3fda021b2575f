//! Replacing the configuration while everything runs: on SIGHUP and through the API.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tucano_api::settings::SettingsError;
use tucano_planner::Event;

use super::Config;
use crate::brain::{Brain, Refused};

/// Holds the configuration that is in force.
#[derive(Debug)]
pub struct ConfigManager {
    path: PathBuf,
    current: ArcSwap<Config>,
    listeners: OnceLock<Vec<SocketAddr>>,
    one_at_a_time: Mutex<()>,
}

/// Why a new configuration was not taken; the old one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error(transparent)]
    Invalid(#[from] SettingsError),
    /// The file changes what only a restart can change.
    #[error(
        "{path}: {key} cannot change while the controller runs: restart it, or put the old value back"
    )]
    NeedsRestart {
        /// The file.
        path: String,
        /// What was changed.
        key: &'static str,
    },
    /// The file takes a token away that a listener needs.
    #[error("{path}: {message}")]
    Unprotected {
        /// The file.
        path: String,
        /// Which listener, and what to do.
        message: String,
    },
    /// What follows from it could not be stored.
    #[error("the new configuration was not taken: {0}")]
    Refused(#[from] Refused),
}

impl ConfigManager {
    /// Begins with `config`, which was read from `path`.
    pub fn new(path: &Path, config: Config) -> Self {
        Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(config),
            listeners: OnceLock::new(),
            one_at_a_time: Mutex::new(()),
        }
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Remembers the local addresses that the API is served on: they decide whether a token may be dropped.
    pub fn listening_on(&self, listeners: Vec<SocketAddr>) {
        self.listeners.get_or_init(|| listeners);
    }

    /// Reads the file again and puts it in force, whole or not at all.
    ///
    /// # Errors
    /// Why the old configuration stays in force.
    pub async fn reload(&self, brain: &Brain) -> Result<Arc<Config>, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let new = Config::read(&self.path)?;
        let path = self.path.display().to_string();
        if let Some(key) = fixed_at_start(&self.current(), &new) {
            return Err(ReloadError::NeedsRestart { path, key });
        }
        for listener in self.listeners.get().into_iter().flatten() {
            if let Err(message) = new.may_listen_on(*listener) {
                return Err(ReloadError::Unprotected { path, message });
            }
        }
        brain
            .apply(Event::Configured {
                workers: new.topology.for_planner(),
                settings: new.planner.clone(),
            })
            .await?;
        let new = Arc::new(new);
        self.current.store(new.clone());
        tracing::info!(path = %self.path.display(), "configuration reloaded");
        Ok(new)
    }
}

/// The first key whose change needs a restart.
fn fixed_at_start(old: &Config, new: &Config) -> Option<&'static str> {
    [
        ("data_dir", old.data_dir == new.data_dir),
        ("api.listen", old.listen == new.listen),
        ("api.tls", old.tls == new.tls),
        ("[balancer]", old.balancer == new.balancer),
        (
            "limits.database_bytes",
            old.limits.database_bytes == new.limits.database_bytes,
        ),
        (
            "limits.header_timeout",
            old.limits.header_timeout == new.limits.header_timeout,
        ),
        (
            "limits.image_*",
            old.limits.of_images_key() == new.limits.of_images_key(),
        ),
        (
            "limits.registry_*",
            old.limits.of_registry_key() == new.limits.of_registry_key(),
        ),
    ]
    .into_iter()
    .find_map(|(key, same)| (!same).then_some(key))
}
