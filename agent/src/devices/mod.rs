//! The devices of this node that containers may have.
//!
//! - [`spec`]: what describes them (Container Device Interface): JSON, or YAML by [`yaml`];
//! - [`catalog`]: all descriptions of the node, from directories that only root can write to (`trusted`);
//! - [`units`]: which names stand for the same devices. PURE;
//! - [`edits`]: what a description changes in a container.
//!
//! The files are read again when they change. A device is reported while the nodes in its description exist.

mod catalog;
mod edits;
mod spec;
#[cfg(test)]
mod tests;
mod trusted;
mod units;
mod yaml;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use oci_spec::runtime::Spec;
use tucano_api::{
    agent::DesiredProcess,
    service::{AssignedDevice, NodeDevices},
    units::Bytes,
};

use catalog::{Catalog, Stamp};

/// Why a process does not get its devices.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No description has it.
    #[error(
        "the device {0} is not described on this node any more: `cdi_dirs` of its agent.toml says where descriptions are"
    )]
    NotDescribed(AssignedDevice),
    /// The controller has not said which device it has.
    #[error("the desired set does not say which {0} the process has")]
    NotAssigned(String),
    /// The node does not give it to containers.
    #[error("{0} is not in `device_paths` of this node's agent.toml")]
    NotListed(String),
    /// Something of it is not there, or is another thing.
    #[error("the device {device}: {problem}")]
    Unusable {
        /// The device.
        device: String,
        /// What is wrong.
        problem: String,
    },
}

/// Limits of what is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most names of devices.
    pub devices: usize,
    /// Largest file.
    pub file: Bytes,
}

/// The devices of this node.
#[derive(Debug)]
pub struct Devices {
    directories: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    limits: Limits,
    read: Mutex<Option<(Vec<Stamp>, Arc<Catalog>)>>,
}

/// What a node reports of its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are described, as far as they are there.
    pub devices: NodeDevices,
    /// Device nodes that containers may have.
    pub paths: Vec<String>,
    /// What is wrong with descriptions, in words for a person.
    pub notes: Vec<String>,
}

impl Devices {
    /// Descriptions in these directories, of which a later one takes precedence, and device nodes.
    pub fn new(directories: Vec<PathBuf>, paths: Vec<PathBuf>, limits: Limits) -> Self {
        Self {
            directories,
            paths,
            limits,
            read: Mutex::default(),
        }
    }

    /// What there is at this moment. Reads files.
    pub fn find(&self) -> Found {
        let catalog = self.catalog();
        let paths = self.paths.iter().filter(|path| edits::is_device(path));
        Found {
            devices: units::of(&catalog.present()),
            paths: paths.map(|path| path.display().to_string()).collect(),
            notes: catalog.notes.clone(),
        }
    }

    /// Gives a container the devices of its process.
    ///
    /// # Errors
    /// One of them is not described or listed, or something of it is not there.
    pub fn give(&self, process: &DesiredProcess, spec: &mut Spec) -> Result<(), Refused> {
        for request in process
            .config
            .devices
            .iter()
            .filter(|it| it.kind().is_some())
        {
            let mut own = process.devices.iter();
            if !own.any(|it| Some(&it.kind) == request.kind()) {
                return Err(Refused::NotAssigned(request.to_string()));
            }
        }
        let mut all = Vec::new();
        if !process.devices.is_empty() {
            let catalog = self.catalog();
            for device in &process.devices {
                let described = catalog.get(&device.kind, &device.name);
                let described = described.ok_or_else(|| Refused::NotDescribed(device.clone()))?;
                all.extend(described.edits(device));
            }
        }
        for path in process.config.device_nodes() {
            if !self.paths.iter().any(|listed| listed.as_os_str() == path) {
                return Err(Refused::NotListed(path.to_owned()));
            }
            all.push((path.to_owned(), spec::ContainerEdits::of_node(path)));
        }
        edits::apply(&all, spec)
    }

    fn catalog(&self) -> Arc<Catalog> {
        let stamps = catalog::stamps(&self.directories);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, catalog)) = &*read
            && *of == stamps
        {
            return Arc::clone(catalog);
        }
        let catalog = Arc::new(Catalog::read(&self.directories, self.limits));
        for note in &catalog.notes {
            tracing::warn!(note, "devices");
        }
        *read = Some((stamps, Arc::clone(&catalog)));
        catalog
    }
}
