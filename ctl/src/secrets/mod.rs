//! Secrets: set, shown without their values, removed, and given to the agents of the workers whose processes need them.
//!
//! - [`vault`]: the keys; [`sealing`]: a value's encryption; [`key_file`].

pub mod key_file;
pub mod sealing;
pub mod vault;

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;
use tucano_api::{
    ids::{NodeName, ProcessId, SecretName, ServiceName},
    secrets::{SecretStored, SecretUser, SecretValue, SecretVersion, SecretView},
    service::{SecretRef, ServiceConfig, secret::MAX_ENV_BYTES},
};
use tucano_planner::{Cluster, Event, SecretRecord};
use tucano_tls::Mode;

use self::{
    sealing::UnsealError,
    vault::{Keys, Vault, VaultError},
};
use crate::{
    config_mgr::ConfigManager,
    state_loop::{Refused, StateHandle, TransactError},
};

/// Longest environment with secrets, in bytes: Linux takes two mebibytes, with the arguments.
const MAX_ENVIRONMENT_BYTES: usize = 1 << 20;
/// Revisions that an error names.
const MAX_NAMED: usize = 5;

/// The cluster's secrets.
#[derive(Debug, Clone)]
pub struct Secrets {
    config: Arc<ConfigManager>,
    state: StateHandle,
    vault: Arc<Vault>,
    /// One change of the key at a time.
    rekeying: Arc<tokio::sync::Mutex<()>>,
    tls: Mode,
}

/// Why nothing was done with a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is none of this name.
    #[error("there is no secret {0}: `tucano secret ls` lists all secrets")]
    NotFound(SecretName),
    /// A service has it.
    #[error("secret {name} is used by {}: {}", users(of), advice(of))]
    InUse {
        /// Its name.
        name: SecretName,
        /// The revisions that have it.
        of: Vec<SecretUser>,
    },
    /// A process has it.
    #[error(
        "secret {name} is used by process {process}, of an earlier revision: wait until it is replaced"
    )]
    Running {
        /// Its name.
        name: SecretName,
        /// The process.
        process: ProcessId,
    },
    /// It was removed, although a process has it.
    #[error("secret {0} was removed: set it again, and deploy the service again")]
    Removed(SecretVersion),
    /// It has no content.
    #[error("the value of secret {0} is empty: send the value as the request's body")]
    Empty(SecretName),
    /// A service has it as a variable, which it cannot be.
    #[error(
        "secret {name} cannot be a variable, as {service} has it: {why}. Use `path` in place of `env`"
    )]
    NotAVariable {
        /// Its name.
        name: SecretName,
        /// The service.
        service: ServiceName,
        /// Why.
        why: String,
    },
    /// All variables of a service are too large.
    #[error(
        "the variables of {service} have {bytes} bytes together, secrets among them: at most {MAX_ENVIRONMENT_BYTES}. Use `path` in place of `env`"
    )]
    EnvironmentTooLarge {
        /// The service.
        service: ServiceName,
        /// Their length.
        bytes: usize,
    },
    /// The limit on secrets is reached.
    #[error("there are {0} secrets, as many as limits.secrets allows: remove one, or raise it")]
    TooMany(u64),
    /// Values would travel as plain text.
    #[error(
        "secrets need TLS between the controller and its agents: `tls = \"off\"` is set in [api] of ctl.toml"
    )]
    NeedsTls,
    /// The keys, or a value, cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No process on the worker needs it.
    #[error("no process on {node} needs secret {secret}")]
    NotNeeded {
        /// The worker.
        node: NodeName,
        /// The secret.
        secret: SecretVersion,
    },
    /// It could not be stored.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What `decide` of [`Secrets::set`] finds.
enum NotSet {
    /// It has this value already.
    Unchanged(u64),
    Failed(SecretError),
}

impl Secrets {
    /// With the keys in the configured file.
    pub fn new(config: Arc<ConfigManager>, state: StateHandle, tls: Mode) -> Self {
        let path = config.current().secret_key_file.clone();
        Self {
            config,
            state,
            vault: Arc::new(Vault::open(path)),
            rekeying: Arc::default(),
            tls,
        }
    }

    /// Why stored secrets cannot be read, if so: a message for the user.
    ///
    /// # Errors
    /// The controller is shutting down.
    pub async fn problem(&self) -> Result<Option<String>, Refused> {
        let (vault, stored) = (Arc::clone(&self.vault), self.stored().await?);
        blocking(move || vault.problem(&stored)).await
    }

    /// All secrets. The encrypted values are shared, not copied.
    async fn stored(&self) -> Result<Vec<SecretRecord>, Refused> {
        let all = |cluster: &Cluster| cluster.sealed_secrets().cloned().collect();
        self.state.query(all).await
    }

    /// Every secret, by name.
    ///
    /// # Errors
    /// The controller is shutting down.
    pub async fn list(&self) -> Result<Vec<SecretView>, SecretError> {
        Ok(self.state.query(Cluster::secrets).await?)
    }

    /// Gives a secret a value. Services that have it get a new revision, unless it is the value that it has. While a stored value
    /// cannot be read, the key file may be the wrong one: then nothing is set, unless the sysadmin says that the key is lost.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn set(
        &self,
        name: SecretName,
        value: Vec<u8>,
        key_lost: bool,
    ) -> Result<SecretStored, SecretError> {
        self.check_tls()?;
        if value.is_empty() {
            return Err(SecretError::Empty(name));
        }
        let value = zeroize::Zeroizing::new(value);
        let (vault, most) = (
            Arc::clone(&self.vault),
            self.config.current().limits.secrets,
        );
        let of = name.clone();
        let decide = move |cluster: &Cluster| {
            check_variable_users(cluster, &of, &value).map_err(NotSet::Failed)?;
            decide_set(cluster, &vault, (&of, &value), most, key_lost)
        };
        let read_name = name.clone();
        let set = self.state.transact(decide, move |cluster, version| {
            let users = cluster.secret_users(&read_name).into_iter();
            // Backups use the new value without a new revision.
            let rolls = |service: &ServiceName| {
                let view = cluster.service(service);
                let secrets = view
                    .map(|it| it.configured.config.secret)
                    .unwrap_or_default();
                secrets.iter().any(|secret| secret.name == read_name)
            };
            let users = users.filter(|user| user.current && user.version == version);
            let users = users.filter(|user| rolls(&user.service));
            SecretStored {
                services: users.map(|user| user.service).collect(),
                name: read_name,
                version,
                changed: true,
            }
        });
        match set.await {
            Ok(stored) => Ok(stored),
            Err(TransactError::Rejected(NotSet::Unchanged(version))) => Ok(SecretStored {
                name,
                version,
                changed: false,
                services: Vec::new(),
            }),
            Err(TransactError::Rejected(NotSet::Failed(error))) => Err(error),
            Err(TransactError::Refused(refused)) => Err(refused.into()),
        }
    }

    /// Removes a secret that no current revision has; with `force`, also one that earlier revisions have, which can then no longer
    /// be rolled back to.
    ///
    /// # Errors
    /// Why it is still there.
    pub async fn remove(&self, name: SecretName, force: bool) -> Result<(), SecretError> {
        let decide = move |cluster: &Cluster| {
            if cluster.secret(&name).is_none() {
                return Err(SecretError::NotFound(name));
            }
            let of = cluster.secret_users(&name);
            if of.iter().any(|user| user.current || !force) {
                return Err(SecretError::InUse { name, of });
            }
            if let Some(process) = cluster.process_with_secret(&name) {
                return Err(SecretError::Running { name, process });
            }
            Ok((Event::SecretRemoved { name }, ()))
        };
        let removed = self.state.transact(decide, |_, ()| ()).await;
        removed.map_err(TransactError::into_inner)
    }

    /// Encrypts every value with a new key, and forgets the earlier one. Where that is interrupted, both keys are kept, every value
    /// can be read, and the next call completes it.
    ///
    /// # Errors
    /// Why the earlier key is still in use.
    pub async fn rekey(&self) -> Result<usize, SecretError> {
        let _alone = self.rekeying.lock().await;
        let (vault, stored) = (Arc::clone(&self.vault), self.stored().await?);
        if stored.is_empty() {
            return Ok(0);
        }
        // Nothing is written before every value has been read.
        let count = stored.len();
        let keys = blocking(move || {
            let keys = vault.keys()?;
            stored.iter().try_for_each(|it| keys.reseal(it).map(drop))?;
            vault.add_key()
        });
        let keys = Arc::new(keys.await??);
        for record in self.stored().await? {
            let keys = Arc::clone(&keys);
            let resealed = blocking(move || keys.reseal(&record)).await??;
            let records = vec![resealed];
            self.state.apply(Event::SecretsResealed { records }).await?;
        }
        let (vault, stored) = (Arc::clone(&self.vault), self.stored().await?);
        blocking(move || vault.drop_earlier_keys(&stored)).await??;
        Ok(count)
    }

    /// Values for the agent of a worker, in the order in which they are asked for.
    ///
    /// # Errors
    /// No process on the worker needs one of them, or it cannot be decrypted.
    pub async fn values(
        &self,
        node: NodeName,
        wanted: Vec<SecretVersion>,
    ) -> Result<Vec<SecretValue>, SecretError> {
        self.check_tls()?;
        let query = move |cluster: &Cluster| {
            let values = wanted.into_iter().map(|secret| {
                if !cluster.needs_secret(&node, &secret) {
                    let node = node.clone();
                    return Err(SecretError::NotNeeded { node, secret });
                }
                let record = cluster.secret(&secret.name);
                let version = record.and_then(|record| record.version(secret.version));
                match version.map(|version| version.sealed.clone()) {
                    Some(sealed) => Ok((secret, sealed)),
                    None => Err(SecretError::Removed(secret)),
                }
            });
            values.collect::<Result<Vec<_>, SecretError>>()
        };
        let sealed = self.state.query(query).await??;
        let vault = Arc::clone(&self.vault);
        let values = blocking(move || {
            let keys = vault.keys()?;
            let value = |(secret, sealed)| {
                let value = keys.unseal(&secret, &sealed)?;
                Ok(SecretValue(BASE64_STANDARD.encode(value.as_slice())))
            };
            sealed.into_iter().map(value).collect()
        });
        values.await?
    }

    /// What checks a configuration within a transaction.
    pub fn checker(&self) -> Checker {
        Checker {
            vault: Arc::clone(&self.vault),
            tls: self.tls,
        }
    }

    fn check_tls(&self) -> Result<(), SecretError> {
        check_tls(self.tls)
    }
}

/// Checks the secrets of configurations.
#[derive(Debug, Clone)]
pub struct Checker {
    vault: Arc<Vault>,
    tls: Mode,
}

impl Checker {
    /// Whether processes of a configuration, whose secrets exist, can have them; `before` is the service's present configuration,
    /// whose secrets are not checked again.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        cluster: &Cluster,
        config: &ServiceConfig,
        before: Option<&ServiceConfig>,
    ) -> Result<(), SecretError> {
        if config.backup_secrets().next().is_some() {
            check_tls(self.tls)?;
        }
        let known = before.map_or(&[][..], |before| &before.secret);
        let is_known = config.secret.iter().all(|it| known.contains(it));
        if is_known && before.is_none_or(|before| before.env == config.env) {
            return Ok(());
        }
        check_tls(self.tls)?;
        check_environment(cluster, config, None)?;
        let new: Vec<&SecretRef> = config
            .secret
            .iter()
            .filter(|it| !known.contains(it))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let keys = self.vault.keys()?;
        new.into_iter()
            .try_for_each(|secret| check_one(cluster, &keys, config, secret))
    }
}

/// Whether a secret can be read, and is what a variable can be where it is one.
fn check_one(
    cluster: &Cluster,
    keys: &Keys,
    config: &ServiceConfig,
    secret: &SecretRef,
) -> Result<(), SecretError> {
    let version = secret.stored();
    let record = cluster.secret(&secret.name);
    let stored = record.and_then(|record| record.version(version.version));
    let stored = stored.ok_or_else(|| SecretError::NotFound(secret.name.clone()))?;
    if secret.env.is_none() {
        if keys.has_key_of(&stored.sealed) {
            return Ok(());
        }
        return Err(VaultError::from(UnsealError::UnknownKey(version)).into());
    }
    let value = keys.unseal(&version, &stored.sealed)?;
    check_variable(&config.name, &secret.name, &value)
}

/// Whether the variables of a service, secrets among them, are not too large together; `changed` is a secret's new length.
fn check_environment(
    cluster: &Cluster,
    config: &ServiceConfig,
    changed: Option<(&SecretName, usize)>,
) -> Result<(), SecretError> {
    if config.secret.iter().all(|secret| secret.env.is_none()) {
        return Ok(());
    }
    let plain = config.env.iter();
    let plain = plain.map(|(name, value)| name.len() + value.len() + 2);
    let length = |secret: &SecretRef| {
        let name = secret.env.as_ref()?;
        let value = match changed {
            Some((of, length)) if *of == secret.name => length,
            _ => {
                let record = cluster.secret(&secret.name)?;
                sealing::value_bytes(&record.version(secret.version?)?.sealed)
            }
        };
        Some(name.len() + value + 2)
    };
    let secrets = config.secret.iter().filter_map(length);
    let whole: usize = plain.chain(secrets).sum();
    if whole <= MAX_ENVIRONMENT_BYTES {
        return Ok(());
    }
    Err(SecretError::EnvironmentTooLarge {
        service: config.name.clone(),
        bytes: whole,
    })
}

fn check_tls(tls: Mode) -> Result<(), SecretError> {
    match tls {
        Mode::On => Ok(()),
        Mode::Off => Err(SecretError::NeedsTls),
    }
}

fn decide_set(
    cluster: &Cluster,
    vault: &Vault,
    (name, value): (&SecretName, &[u8]),
    most: u64,
    key_lost: bool,
) -> Result<(Event, u64), NotSet> {
    let record = cluster.secret(name);
    let count = cluster.sealed_secrets().count() as u64;
    if record.is_none() && count >= most {
        return Err(NotSet::Failed(SecretError::TooMany(count)));
    }
    let keys = match count == 0 || key_lost {
        true => vault.keys_or_first(),
        false => vault.keys(),
    };
    let keys = keys?;
    if !key_lost {
        keys.check_known(cluster.sealed_secrets())?;
    }
    if let Some(version) = unchanged(&keys, record, value) {
        return Err(NotSet::Unchanged(version));
    }
    let secret = SecretVersion {
        name: name.clone(),
        version: cluster.next_secret_version(),
    };
    let sealed = keys.seal(&secret, value)?;
    let SecretVersion { name, version } = secret;
    let event = Event::SecretSet {
        name,
        version,
        sealed,
    };
    Ok((event, version))
}

impl From<VaultError> for NotSet {
    fn from(error: VaultError) -> Self {
        Self::Failed(error.into())
    }
}

/// The newest version, if it has this value.
fn unchanged(keys: &Keys, record: Option<&SecretRecord>, value: &[u8]) -> Option<u64> {
    let (secret, newest) = record?.identified().last()?;
    let present = keys.unseal(&secret, &newest.sealed).ok()?;
    bool::from(present.as_slice().ct_eq(value)).then_some(newest.version)
}

/// Whether all services that have a secret as a variable can have this value.
fn check_variable_users(
    cluster: &Cluster,
    name: &SecretName,
    value: &[u8],
) -> Result<(), SecretError> {
    for user in cluster.secret_users(name).iter().filter(|it| it.current) {
        let Some(service) = cluster.service(&user.service) else {
            continue;
        };
        let config = service.configured.config;
        let mut secrets = config.secret.iter();
        if secrets.any(|it| it.name == *name && it.env.is_some()) {
            check_variable(&user.service, name, value)?;
            check_environment(cluster, &config, Some((name, value.len())))?;
        }
    }
    Ok(())
}

fn check_variable(
    service: &ServiceName,
    name: &SecretName,
    value: &[u8],
) -> Result<(), SecretError> {
    let why = if value.contains(&0) {
        "it contains a NUL byte".to_owned()
    } else if value.len() > MAX_ENV_BYTES {
        format!("it has more than {MAX_ENV_BYTES} bytes")
    } else if std::str::from_utf8(value).is_err() {
        "it is not UTF-8".to_owned()
    } else {
        return Ok(());
    };
    Err(SecretError::NotAVariable {
        name: name.clone(),
        service: service.clone(),
        why,
    })
}

fn users(of: &[SecretUser]) -> String {
    let named = of.iter().take(MAX_NAMED).map(ToString::to_string);
    let named: Vec<String> = named.collect();
    match of.len().saturating_sub(MAX_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn advice(of: &[SecretUser]) -> &'static str {
    match of.iter().any(|user| user.current) {
        true => "deploy without it first",
        false => "with force=true it is removed, and those can no longer be rolled back to",
    }
}

/// Encrypts or decrypts outside of the tasks that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Refused::Stopping)
}
