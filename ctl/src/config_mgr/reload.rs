//! Replaces the configuration at run time: on SIGHUP and through the API.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tucano_api::settings::SettingsErrors;
use tucano_planner::Event;

use super::{Config, Token};
use crate::state_loop::{Refused, StateHandle};

/// Holds the configuration in force.
#[derive(Debug)]
pub struct ConfigManager {
    path: PathBuf,
    current: ArcSwap<Config>,
    listeners: OnceLock<Vec<SocketAddr>>,
    reloading: Mutex<()>,
    /// The agents' previous token, and when it was replaced.
    previous_agent_token: StdMutex<Option<(Token, Instant)>>,
}

/// Why a new configuration was refused; the old one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is invalid.
    #[error(transparent)]
    Invalid(#[from] SettingsErrors),
    /// The file changes a key that needs a restart.
    #[error(
        "{path}: {key} cannot change while the controller runs: restart it, or put the old value back"
    )]
    NeedsRestart {
        /// The file.
        path: String,
        /// The changed key.
        key: &'static str,
    },
    /// The file removes a token that a listener needs.
    #[error("{path}: {message}")]
    Unprotected {
        /// The file.
        path: String,
        /// The listener, and advice.
        message: String,
    },
    /// Its consequences could not be stored.
    #[error("the new configuration was refused: {0}")]
    Refused(#[from] Refused),
}

impl ConfigManager {
    /// Starts with `config`, which was read from `path`.
    pub fn new(path: &Path, config: Config) -> Self {
        Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(config),
            listeners: OnceLock::new(),
            reloading: Mutex::new(()),
            previous_agent_token: StdMutex::default(),
        }
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// The agents' token and, for `agent_token_overlap` after a reload, the previous one: agents read their file again, but
    /// not at the same moment.
    pub fn agent_tokens(&self) -> Vec<Token> {
        let config = self.current();
        let previous = self.previous_agent_token.lock();
        let previous = previous.unwrap_or_else(PoisonError::into_inner);
        let overlap = config.agent_token_overlap.0;
        let valid = previous.iter().filter(|(_, at)| at.elapsed() < overlap);
        let current = config.agent_token.iter().cloned();
        match config.agent_token {
            Some(_) => current
                .chain(valid.map(|(token, _)| token.clone()))
                .collect(),
            None => Vec::new(),
        }
    }

    /// Sets the local addresses of the API's listeners: they decide whether a token may be removed.
    pub fn listening_on(&self, listeners: Vec<SocketAddr>) {
        self.listeners.get_or_init(|| listeners);
    }

    /// Reads the file and puts it in force, entirely or not at all.
    ///
    /// # Errors
    /// Why the configuration was refused; the old one stays in force.
    pub async fn reload(&self, state: &StateHandle) -> Result<Arc<Config>, ReloadError> {
        let _exclusive = self.reloading.lock().await;
        let new = Config::read(&self.path)?;
        let path = self.path.display().to_string();
        if let Some(key) = restart_required_by(&self.current(), &new) {
            return Err(ReloadError::NeedsRestart { path, key });
        }
        for listener in self.listeners.get().into_iter().flatten() {
            if let Err(message) = new.may_listen_on(*listener) {
                return Err(ReloadError::Unprotected { path, message });
            }
        }
        state
            .apply(Event::Configured {
                workers: new.topology.for_planner(),
                settings: new.planner.clone(),
            })
            .await?;
        let old = self.current();
        if old.agent_token != new.agent_token {
            let replaced = old.agent_token.clone().map(|token| (token, Instant::now()));
            let mut previous = self
                .previous_agent_token
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *previous = replaced;
        }
        let new = Arc::new(new);
        self.current.store(new.clone());
        tracing::info!(path = %self.path.display(), "configuration reloaded");
        Ok(new)
    }
}

/// The first changed key that needs a restart.
fn restart_required_by(old: &Config, new: &Config) -> Option<&'static str> {
    [
        ("data_dir", old.data_dir == new.data_dir),
        (
            "secret_key_file",
            old.secret_key_file == new.secret_key_file,
        ),
        ("api.listen", old.listen == new.listen),
        ("api.tls", old.tls == new.tls),
        ("[balancer]", old.balancer == new.balancer),
        (
            "limits.database_bytes",
            old.limits.database_bytes == new.limits.database_bytes,
        ),
        (
            "limits.connections_per_peer",
            old.limits.connections_per_peer == new.limits.connections_per_peer,
        ),
        (
            "limits.worker_connections",
            old.limits.worker_connections == new.limits.worker_connections,
        ),
        (
            "limits.body_time",
            old.limits.body_time == new.limits.body_time,
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
