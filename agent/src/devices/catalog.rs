//! All descriptions of a node.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tucano_api::{
    ids::{DeviceKind, DeviceName},
    service::AssignedDevice,
};

use super::{
    Limits, edits,
    spec::{ContainerEdits, Description},
    trusted,
    units::Parts,
};

/// A description by its file, as far as it can be told that it is the same: path, inode, change in nanoseconds, and length.
pub(super) type Stamp = (PathBuf, u64, i64, i64, u64);

/// The devices by kind and name.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    devices: BTreeMap<DeviceKind, BTreeMap<DeviceName, Described>>,
    pub(super) notes: Vec<String>,
}

/// Where a device is described.
#[derive(Debug, Clone)]
pub(super) struct Described {
    description: Arc<Description>,
    index: usize,
    /// The directory, by its number: a later one takes precedence.
    priority: usize,
    /// Whether two files of one directory describe it: then it is neither.
    is_doubled: bool,
}

/// What tells whether anything has changed.
pub(super) fn stamps(directories: &[PathBuf]) -> Vec<Stamp> {
    let files = directories
        .iter()
        .flat_map(|directory| files_of(directory).unwrap_or_default());
    let all = directories.iter().cloned().chain(files);
    let stamp = |path: PathBuf| {
        let found = fs::metadata(&path).ok()?;
        Some((
            path,
            found.ino(),
            found.ctime(),
            found.ctime_nsec(),
            found.len(),
        ))
    };
    all.filter_map(stamp).collect()
}

fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| is_description(path).is_some());
    paths.sort();
    Ok(paths)
}

/// Whether a file is a description, and then whether it is JSON.
fn is_description(path: &Path) -> Option<bool> {
    match path.extension()?.to_str()? {
        "json" => Some(true),
        "yaml" | "yml" => Some(false),
        _ => None,
    }
}

impl Catalog {
    /// Reads the descriptions. What is wrong with one is noted, and concerns its devices only.
    pub(super) fn read(directories: &[PathBuf], limits: Limits) -> Self {
        let mut catalog = Self::default();
        for (priority, directory) in directories.iter().enumerate() {
            let files = match trusted::check(directory).and_then(|_| files_of(directory)) {
                Ok(files) => files,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    catalog.note(directory, &error);
                    continue;
                }
            };
            for path in files {
                match read(&path, limits) {
                    Ok(description) => catalog.add(&path, description, priority, limits),
                    Err(error) => catalog.note(&path, &error),
                }
            }
        }
        catalog
    }

    pub(super) fn get(&self, kind: &DeviceKind, name: &DeviceName) -> Option<&Described> {
        let described = self.devices.get(kind)?.get(name)?;
        (!described.is_doubled).then_some(described)
    }

    /// The devices whose nodes exist, with the nodes that are their own.
    pub(super) fn present(&self) -> BTreeMap<DeviceKind, BTreeMap<DeviceName, Parts>> {
        let kinds = self.devices.iter().map(|(kind, names)| {
            let there = names
                .iter()
                .filter(|(_, it)| !it.is_doubled && it.is_present());
            let there = there.map(|(name, it)| (name.clone(), it.parts()));
            (kind.clone(), there.collect::<BTreeMap<_, _>>())
        });
        kinds.filter(|(_, names)| !names.is_empty()).collect()
    }

    fn add(&mut self, path: &Path, description: Description, priority: usize, limits: Limits) {
        let count: usize = self.devices.values().map(BTreeMap::len).sum();
        if count + description.devices.len() > limits.devices {
            let problem = format!(
                "more than {} devices are described: raise limits.devices in agent.toml",
                limits.devices
            );
            return self.note(path, &problem);
        }
        let description = Arc::new(description);
        let names = self.devices.entry(description.kind.clone()).or_default();
        let mut doubled = Vec::new();
        for (index, device) in description.devices.iter().enumerate() {
            let before = names.get(&device.name);
            let is_doubled = before.is_some_and(|before| before.priority == priority);
            if is_doubled {
                doubled.push(device.name.as_str());
            }
            let described = Described {
                description: Arc::clone(&description),
                index,
                priority,
                is_doubled,
            };
            names.insert(device.name.clone(), described);
        }
        if !doubled.is_empty() {
            let problem = format!(
                "{} of {} is described twice in one directory, and counts as neither: remove one of both",
                doubled.join(", "),
                description.kind
            );
            self.note(path, &problem);
        }
    }

    fn note(&mut self, path: &Path, problem: &dyn std::fmt::Display) {
        self.notes
            .push(format!("devices of {}: {problem}", path.display()));
    }
}

fn read(path: &Path, limits: Limits) -> Result<Description, String> {
    let resolved = trusted::check(path).map_err(|error| error.to_string())?;
    let length = fs::metadata(&resolved)
        .map_err(|error| error.to_string())?
        .len();
    if length > limits.file.0 {
        return Err(format!(
            "it is larger than {}: raise limits.cdi_file in agent.toml",
            limits.file
        ));
    }
    let text = fs::read_to_string(&resolved).map_err(|error| error.to_string())?;
    Description::parse(&text, is_description(path).unwrap_or(true))
}

impl Described {
    /// What a container with this device gets, and what it is called in messages.
    pub(super) fn edits(&self, device: &AssignedDevice) -> Vec<(String, ContainerEdits)> {
        let own = &self.description.devices[self.index].container_edits;
        let all = [&self.description.container_edits, own];
        all.map(|it| (device.to_string(), it.clone())).into()
    }

    fn is_present(&self) -> bool {
        let own = &self.description.devices[self.index].container_edits;
        let mut nodes = own.device_nodes.iter();
        nodes.all(|node| edits::is_device(Path::new(node.on_node())))
    }

    fn parts(&self) -> Parts {
        let common = &self.description.container_edits.device_nodes;
        let own = &self.description.devices[self.index]
            .container_edits
            .device_nodes;
        let own = own.iter().map(|node| node.on_node());
        let own = own.filter(|path| !common.iter().any(|node| node.on_node() == *path));
        own.map(str::to_owned).collect()
    }
}
