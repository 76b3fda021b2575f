//! Secrets on this node. Their values are only in memory: in a tmpfs without swap, or a ramfs on kernels before 6.4.
//!
//! ```text
//! <data_dir>/secrets/               tmpfs, or ramfs, for root only
//!   values/<name>@<version>         as long as a desired process has it: a restart needs no controller
//!   incoming/<name>@<version>       while it is written
//!   processes/<id>/<n>, env         what is mounted into a container, with mode and owner; its variables
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, DirBuilder},
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{FsType, TMPFS_MAGIC, statfs},
};
use tokio::sync::Semaphore;
use tucano_api::{
    agent::DesiredProcess,
    ids::{NodeName, ProcessId},
    secrets::{SecretValues, SecretValuesRequest, SecretVersion},
    service::{SecretRef, ServiceConfig, secret::MAX_SECRET_BYTES},
};

use crate::{
    address::local_address,
    answers::{self, BodyError},
    credentials::Credentials,
    errors::root_cause,
    files::{remove_if_exists, write_new, write_owned},
    settings::Settings,
};

/// Concurrent fetches of values.
const MAX_FETCHES: usize = 4;
/// Time limit for connecting to the controller.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a value, also of the largest over a slow link.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer with one value: it is in Base64.
const MAX_ANSWER_BYTES: usize = MAX_SECRET_BYTES / 3 * 4 + 4096;
/// ramfs has no constant in nix.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// Name of the file with a container's variables.
const ENVIRONMENT: &str = "env";

/// The node's secrets.
#[derive(Debug)]
pub struct Secrets {
    directory: PathBuf,
    controller: String,
    credentials: Arc<Credentials>,
    node: Option<NodeName>,
    ip: Option<IpAddr>,
    mounting: Mutex<()>,
    /// A lock for each value, so that it is fetched once.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Limits concurrent fetches, which share the connection with reports.
    fetches: Semaphore,
}

impl Secrets {
    /// Of these settings. Nothing is mounted before the first secret.
    pub fn new(settings: &Settings, credentials: Arc<Credentials>) -> Self {
        Self {
            directory: settings.data_dir.join("secrets"),
            controller: settings.controller.clone(),
            credentials,
            node: settings.name.clone(),
            ip: settings.ip,
            mounting: Mutex::default(),
            locks: Mutex::default(),
            fetches: Semaphore::new(MAX_FETCHES),
        }
    }

    /// Fetches the values that a process needs and that are not on the node, and writes its files. Ids of the container are
    /// `ids_base` higher on the node.
    ///
    /// # Errors
    /// A message for the user.
    pub async fn prepare(
        self: &Arc<Self>,
        process: &DesiredProcess,
        ids_base: u32,
    ) -> Result<(), String> {
        if process.config.secret.is_empty() {
            return Ok(());
        }
        let this = Arc::clone(self);
        blocking(move || this.mount()).await?;
        for secret in versions(&process.config) {
            self.ensure(&secret).await?;
        }
        let (this, process) = (Arc::clone(self), process.clone());
        blocking(move || this.write_files(&process, ids_base)).await
    }

    /// Fetches a value unless it is on the node.
    async fn ensure(&self, secret: &SecretVersion) -> Result<(), String> {
        let lock = Arc::clone(self.locks().entry(file_name(secret)).or_default());
        let _alone = lock.lock().await;
        let path = self.value_path(secret);
        if path.exists() {
            return Ok(());
        }
        let permit = self.fetches.acquire().await;
        let value = self.fetch(secret).await.map_err(|why| {
            format!(
                "waits for secret {}, which is not on this node since its start: {why}",
                secret.name
            )
        })?;
        drop(permit);
        let incoming = self.directory.join("incoming").join(file_name(secret));
        blocking(move || {
            let write = || {
                remove_if_exists(&incoming)?;
                write_new(&incoming, &value)?;
                fs::rename(&incoming, &path)
            };
            write().map_err(|error| format!("cannot keep a secret in memory: {error}"))
        })
        .await
    }

    /// A value that no process needs: it is nowhere but in the returned memory.
    ///
    /// # Errors
    /// The controller cannot be reached, or refuses it. A message for the user, which names the secret.
    pub async fn value(
        &self,
        secret: &SecretVersion,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        let _permit = self.fetches.acquire().await;
        let value = self.fetch(secret).await;
        value
            .map(zeroize::Zeroizing::new)
            .map_err(|why| format!("cannot get secret {}: {why}", secret.name))
    }

    /// Where the file of a process's secret is, by the secret's number in the configuration.
    pub fn file_path(&self, id: &ProcessId, number: usize) -> PathBuf {
        self.process(id).join(number.to_string())
    }

    /// The file with a process's variables, if it has secrets as variables.
    pub fn environment_path(&self, process: &DesiredProcess) -> Option<PathBuf> {
        let mut secrets = process.config.secret.iter();
        let has_variables = secrets.any(|secret| secret.env.is_some());
        has_variables.then(|| self.process(&process.id).join(ENVIRONMENT))
    }

    /// Removes a process's files.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove(&self, id: &ProcessId) -> io::Result<()> {
        remove_if_exists(&self.process(id))
    }

    /// Removes the files of processes that there are no longer. Best effort, as [`Secrets::prune`].
    pub fn retain_processes(&self, known: &BTreeSet<ProcessId>) {
        let entries = fs::read_dir(self.directory.join("processes"));
        for entry in entries.into_iter().flatten().flatten() {
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if id.is_some_and(|id| known.contains(&id)) {
                continue;
            }
            if let Err(error) = remove_if_exists(&entry.path()) {
                tracing::warn!(%error, "cannot remove the secrets of a process that is gone");
            }
        }
    }

    /// Removes the values that no desired process needs. Best effort: a failure is logged.
    pub fn prune(&self, desired: &[DesiredProcess]) {
        let needed: BTreeSet<String> = desired
            .iter()
            .flat_map(|process| versions(&process.config))
            .map(|secret| file_name(&secret))
            .collect();
        self.locks().retain(|name, _| needed.contains(name));
        let entries = fs::read_dir(self.values()).into_iter().flatten().flatten();
        let unneeded = entries.filter(|entry| {
            let name = entry.file_name();
            !name.to_str().is_some_and(|name| needed.contains(name))
        });
        for entry in unneeded {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, "cannot remove a secret that no process needs");
            }
        }
    }

    /// Unmounts the file system, where no process uses it.
    pub fn unmount(&self) {
        let is_empty = |directory: &Path| {
            fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
        };
        let _alone = self.alone();
        let is_idle = is_empty(&self.values()) && is_empty(&self.directory.join("processes"));
        if is_idle
            && is_in_memory(&self.directory)
            && let Err(error) = umount2(&self.directory, MntFlags::UMOUNT_NOFOLLOW)
        {
            tracing::debug!(%error, "the secrets' file system is in use");
        }
    }

    fn mount(&self) -> Result<(), String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            let path = self.directory.display();
            format!("cannot {what} {path}, where secrets are kept in memory: {error}")
        };
        let _alone = self.alone();
        let mut directory = DirBuilder::new();
        directory.recursive(true).mode(0o700);
        directory
            .create(&self.directory)
            .map_err(|error| failed("create", &error))?;
        if !is_in_memory(&self.directory) {
            mount_in_memory(&self.directory).map_err(|error| failed("mount", &error))?;
        }
        let parts = ["values", "incoming", "processes"];
        for directory_of in parts.map(|part| self.directory.join(part)) {
            directory
                .create(directory_of)
                .map_err(|error| failed("write", &error))?;
        }
        Ok(())
    }

    async fn fetch(&self, secret: &SecretVersion) -> Result<Vec<u8>, String> {
        let ip = self.ip.map_or_else(|| local_address(&self.controller), Ok);
        let request = SecretValuesRequest {
            node: self.node.clone(),
            ip: ip.map_err(|error| error.to_string())?,
            secrets: vec![secret.clone()],
        };
        let client = self.credentials.client();
        let client = client.map_err(|error| error.to_string())?;
        let client = client
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT)
            .build();
        let client = client.map_err(|error| root_cause(&error))?;
        let url = format!("{}/v1/secret_values", self.controller);
        let unreachable = |error: reqwest::Error| {
            format!("the controller cannot be reached: {}", root_cause(&error))
        };
        let send = || client.post(&url).json(&request);
        let mut response = self.credentials.send(send).await.map_err(unreachable)?;
        let status = response.status();
        let mut body = zeroize::Zeroizing::new(Vec::new());
        let read = answers::read_body(&mut response, MAX_ANSWER_BYTES, &mut body).await;
        read.map_err(|error| match error {
            BodyError::Broken(error) => unreachable(error),
            BodyError::TooLong => "the controller's answer is too long".to_owned(),
        })?;
        if !status.is_success() {
            let reason = answers::reason(&body).unwrap_or_else(|| "no reason given".to_owned());
            let status = status.as_u16();
            return Err(format!(
                "the controller refuses it with status {status}: {reason}"
            ));
        }
        value_in(&body).ok_or_else(|| "the controller's answer has no value".to_owned())
    }

    /// Writes what is mounted into a container, anew for each start: the earlier container is gone.
    fn write_files(&self, process: &DesiredProcess, ids_base: u32) -> Result<(), String> {
        let write = || -> io::Result<()> {
            let directory = self.process(&process.id);
            remove_if_exists(&directory)?;
            DirBuilder::new().mode(0o700).create(&directory)?;
            let mut environment = zeroize::Zeroizing::new(Vec::new());
            for (number, secret) in process.config.secret.iter().enumerate() {
                let value = fs::read(self.value_path(&secret.stored()))?;
                let value = zeroize::Zeroizing::new(value);
                if let Some(variable) = &secret.env {
                    environment.extend_from_slice(variable.as_bytes());
                    environment.push(b'=');
                    environment.extend_from_slice(&value);
                    environment.push(0);
                    continue;
                }
                let id = |id: u32| ids_base.saturating_add(id);
                let (mode, owner) = (secret.mode.bits(), (id(secret.uid), id(secret.gid)));
                write_owned(&self.file_path(&process.id, number), &value, mode, owner)?;
            }
            if !environment.is_empty() {
                write_new(&directory.join(ENVIRONMENT), &environment)?;
            }
            Ok(())
        };
        write().map_err(|error| format!("cannot write its secrets into memory: {error}"))
    }

    fn values(&self) -> PathBuf {
        self.directory.join("values")
    }

    fn value_path(&self, secret: &SecretVersion) -> PathBuf {
        self.values().join(file_name(secret))
    }

    fn process(&self, id: &ProcessId) -> PathBuf {
        self.directory.join("processes").join(id.as_str())
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn versions(config: &ServiceConfig) -> impl Iterator<Item = SecretVersion> {
    config.secret.iter().map(SecretRef::stored)
}

fn file_name(secret: &SecretVersion) -> String {
    format!("{}@{}", secret.name, secret.version)
}

/// The value in an answer with exactly one.
fn value_in(body: &[u8]) -> Option<Vec<u8>> {
    let SecretValues { values } = serde_json::from_slice(body).ok()?;
    let [value] = values.as_slice() else {
        return None;
    };
    BASE64_STANDARD.decode(&value.0).ok()
}

/// Whether a directory is on a file system in memory of its own.
fn is_in_memory(directory: &Path) -> bool {
    let kind = |path: &Path| statfs(path).map(|found| found.filesystem_type());
    let is_memory = matches!(kind(directory), Ok(TMPFS_MAGIC | RAMFS_MAGIC));
    let device = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).map(|metadata| metadata.dev()).ok()
    };
    let parent = directory.parent().unwrap_or(directory);
    is_memory && device(directory) != device(parent)
}

/// Mounts a tmpfs without swap. Kernels before 6.4 lack that option: they get a ramfs, which is not swapped out either.
fn mount_in_memory(directory: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mount_as = |kind: &str, options: &str| {
        mount(Some("secrets"), directory, Some(kind), flags, Some(options))
    };
    mount_as("tmpfs", "mode=0700,size=25%,noswap").or_else(|_| mount_as("ramfs", "mode=0700"))
}

async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| "the agent is ending".to_owned())?
}

#[cfg(test)]
mod tests;
