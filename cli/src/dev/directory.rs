//! The files of a development cluster.
//!
//! - `hosts/ctl`, `hosts/w1`…: each host's configuration and data
//! - `logs/`: the log of each program
//! - `agent-token`: shared by controller and agents, new with each start
//! - and the files of [`tucano_vhost`]

use std::{
    env, fs,
    fs::{DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::Error;

/// A cluster's directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Whether it stays when the cluster ends.
    kept: bool,
}

impl Directory {
    /// The directory that the user named, or a default one for this port. Only root may read it.
    pub(super) fn open(named: Option<&Path>, api_port: u16) -> Result<Self, Error> {
        let path = match named {
            Some(path) => std::path::absolute(path).map_err(Error::file("find", path))?,
            None => default(env::var_os("XDG_STATE_HOME").map(PathBuf::from), api_port),
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&path)
            .map_err(Error::file("create", &path))?;
        Ok(Self {
            path,
            kept: named.is_some(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn log_of(&self, program: &str) -> PathBuf {
        self.path.join("logs").join(format!("{program}.log"))
    }

    /// Removes what a killed cluster left, and prepares for a new one. No program of the old one may run any more.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        if !self.kept {
            remove(&self.path.join("hosts"))?;
            remove(&self.path.join("logs"))?;
        }
        let logs = self.path.join("logs");
        fs::create_dir_all(&logs).map_err(Error::file("create", &logs))
    }

    /// A new secret, in a file that only root may read.
    pub(super) fn write_agent_token(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("agent-token");
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Error::Dev(format!("cannot create a token: {error}")))?;
        let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).map_err(Error::file("write", &path))?;
        file.write_all(text.as_bytes())
            .map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Removes it, unless the user named it.
    pub(super) fn remove(self) -> Result<(), Error> {
        if self.kept {
            return Ok(());
        }
        remove(&self.path)?;
        // The parent too, if nothing else is in it.
        self.path
            .parent()
            .and_then(|parent| fs::remove_dir(parent).ok());
        Ok(())
    }
}

fn default(state_home: Option<PathBuf>, api_port: u16) -> PathBuf {
    let state = state_home
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| "/var/lib".into());
    state.join("tucano").join(format!("dev-{api_port}"))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
