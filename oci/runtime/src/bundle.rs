//! Bundles: a directory with `config.json` and usually the root file system (OCI runtime specification, "Filesystem
//! Bundle").

mod dialect;
mod rootless;
mod support;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags};

use crate::state_dir::read_bounded;

/// Memory limit of the default configuration.
const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;

/// Process limit of the default configuration.
const DEFAULT_PIDS: u32 = 512;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a runtime configuration.
    #[error("{path} is not an OCI runtime configuration: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A field is invalid or not supported.
    #[error("config.json: {0}")]
    Refused(String),
}

/// A bundle whose configuration has been checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute path of the directory.
    pub directory: PathBuf,
    /// The configuration. Paths on the host are absolute.
    pub spec: Spec,
    /// What of the configuration is ignored.
    pub warnings: Vec<String>,
}

/// Writes a default `config.json` into a directory: the default sandbox around a shell with a terminal; with `rootless`,
/// in a user namespace of the caller's ids.
pub fn write_default(directory: &Path, rootless: bool) -> Result<(), Error> {
    let path = directory.join("config.json");
    let sandbox = crate::profile::Sandbox {
        args: vec!["sh".into()],
        env: vec![format!("PATH={}", crate::container::process::DEFAULT_PATH)],
        hostname: "tucano".into(),
        memory_bytes: DEFAULT_MEMORY_BYTES,
        pids: DEFAULT_PIDS,
        ..Default::default()
    };
    let spec = sandbox
        .spec()
        .map_err(|error| Error::Refused(error.to_string()))?;
    let described = |spec: &Spec| {
        let mut spec = serde_json::to_value(spec)?;
        spec["process"]["terminal"] = true.into();
        if rootless {
            rootless::adapt(&mut spec);
        }
        serde_json::to_vec_pretty(&spec)
    };
    let mut text = described(&spec).map_err(|source| Error::Config {
        path: path.clone(),
        source,
    })?;
    text.push(b'\n');
    File::create_new(&path)
        .and_then(|mut file| file.write_all(&text))
        .map_err(|source| Error::Write { path, source })
}

impl Bundle {
    /// Reads and checks the bundle in a directory.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let directory = real(directory)?;
        let path = directory.join("config.json");
        let text = read_bounded(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let mut warnings = Vec::new();
        let spec =
            dialect::spec(&text, &mut warnings).map_err(|source| Error::Config { path, source })?;
        support::check(&spec, &text).map_err(Error::Refused)?;
        let spec = with_absolute_paths(spec, &directory)?;
        Ok(Self {
            directory,
            spec,
            warnings,
        })
    }
}

/// Parses and checks a file with a `process` object, as `exec` takes it; returns warnings.
pub(crate) fn read_process(path: &Path) -> Result<(Process, Vec<String>), Error> {
    let path = path.to_owned();
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(source) => return Err(Error::Read { path, source }),
    };
    let mut warnings = Vec::new();
    match dialect::process(&text, &mut warnings) {
        Ok(process) => Ok((process, warnings)),
        Err(source) => Err(Error::Config { path, source }),
    }
}

/// Checks a `process` object: the configuration's own, or that of an `exec`.
pub(crate) fn check_process(process: &Process) -> Result<(), Error> {
    support::check_process(process).map_err(Error::Refused)
}

/// Resolves symbolic links. The kernel does so in fewer calls than `realpath(3)`.
fn real(path: &Path) -> Result<PathBuf, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| read(errno.into()))?;
    fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(read)
}

/// Relative paths of the root and of bind mounts' sources are relative to the bundle.
fn with_absolute_paths(mut spec: Spec, directory: &Path) -> Result<Spec, Error> {
    if let Some(root) = spec.root_mut() {
        root.set_path(real(&directory.join(root.path()))?);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let bind = support::is_bind(mount);
        if let Some(source) = mount.source().clone().filter(|_| bind) {
            mount.set_source(Some(directory.join(source)));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests;
