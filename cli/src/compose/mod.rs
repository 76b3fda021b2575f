//! Compose files: an application of several services, turned into configurations of services.
//!
//! - `interpolate`, `dotenv`: variables;
//! - `file`: the document as a whole: its name, profiles, and the order of its services;
//! - `service`: one service, key by key; `ports`, `volumes`, `files`, `health`, `deploy`, `limits`: its parts;
//! - `findings`: what is refused, all at once, and what is done differently.

mod deploy;
pub(crate) mod dotenv;
mod file;
mod files;
mod findings;
mod health;
mod interpolate;
mod limits;
mod ports;
mod service;
#[cfg(test)]
mod tests;
mod volumes;
mod words;

use std::{fs, path::Path};

use serde_json::{Map, Value};
use tucano_api::ids::{AppName, ServiceName};
use tucano_yaml as yaml;

use crate::Error;

/// Largest Compose file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a Compose file describes.
#[derive(Debug)]
pub(crate) struct Application {
    /// Its name.
    pub(crate) name: AppName,
    /// Its services: stage by stage, each after those that it depends on.
    pub(crate) services: Vec<Service>,
    /// What is done differently than by Compose, as lines for the user.
    pub(crate) notes: Vec<String>,
}

/// A service of an application.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: ServiceName,
    /// The stage of the deploy that it belongs to, from 0. A stage begins when the jobs of the one before have succeeded.
    pub(crate) stage: usize,
    /// The services that it comes after.
    pub(crate) after: Vec<ServiceName>,
    /// Its configuration, as `service.toml` has it.
    pub(crate) config: Map<String, Value>,
}

/// What a Compose file is read with.
pub(crate) struct Options<'a> {
    /// The profiles that are active.
    pub(crate) profiles: &'a [String],
    /// Variables of the environment.
    pub(crate) variables: &'a dyn Fn(&str) -> Option<String>,
}

/// Whether a path is a Compose file by its name.
pub(crate) fn is_compose(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    matches!(extension, Some("yaml" | "yml"))
}

/// The Compose file of a directory, if it has one and no configuration of a service.
pub(crate) fn in_directory(directory: &Path) -> Option<std::path::PathBuf> {
    let names = [
        "compose.yaml",
        "compose.yml",
        "docker-compose.yaml",
        "docker-compose.yml",
    ];
    let mut paths = names.iter().map(|name| directory.join(name));
    paths.find(|path| path.is_file())
}

/// Reads a Compose file.
///
/// # Errors
/// It cannot be read, or something in it cannot be done: all of that, with the lines.
pub(crate) fn read(path: &Path, options: &Options<'_>) -> Result<Application, Error> {
    let size = fs::metadata(path)
        .map_err(Error::input("read", path))?
        .len();
    if size > MAX_BYTES {
        let message = format!(
            "{} has {size} bytes; the limit for a Compose file is {MAX_BYTES} bytes",
            path.display()
        );
        return Err(Error::Refused(message.into()));
    }
    let text = fs::read_to_string(path).map_err(Error::input("read", path))?;
    file::read(path, &text, options).map_err(|message| Error::Refused(message.into()))
}

pub(crate) use ports::is_not_http;

/// A name as services and applications have them, made from another one.
pub(crate) fn name(text: &str) -> String {
    words::name(text)
}
