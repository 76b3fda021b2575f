//! Directories of the node that a container has: its volumes, and those that its service asks for.

use std::{path::PathBuf, sync::Arc};

use tucano_api::{
    agent::{DesiredProcess, DesiredVolume},
    service::Volume,
};
use tucano_oci_runtime::profile::HostDirectory;

use super::{
    execute::{Error, Executor, blocking},
    images::Unpacked,
    state::Record,
};
use crate::volumes::{Wanted, host};

impl Executor {
    /// The directories of a process's container. Its volumes are its own from now on: created, mounted, and as large as configured.
    pub(super) async fn mounted_directories(
        &self,
        record: &Record,
        image: &Unpacked,
    ) -> Result<Vec<HostDirectory>, Error> {
        let process = record.process.clone();
        if process.config.volume.is_empty() && process.config.mount.is_empty() {
            return Ok(Vec::new());
        }
        let layers = image.layers.clone();
        let volumes = Arc::clone(&self.volumes);
        let listed = self.host_paths.clone();
        let data_dir = self.data.root().to_owned();
        blocking(move || {
            let own = [data_dir.as_path(), volumes.place()];
            let mut directories = host_directories(&process, &listed, &own)?;
            let ids = process.volumes.iter().map(|it| &it.volume.id);
            volumes.claims().claim(&process.id, ids)?;
            for (configured, desired) in volumes_of(&process)? {
                let wanted = wanted(&process, configured, desired, &layers);
                directories.push(HostDirectory {
                    source: volumes.prepare(&wanted)?,
                    destination: configured.path.clone().into(),
                    is_read_only: false,
                });
            }
            Ok(directories)
        })
        .await
    }

    /// Makes the volumes of a running process as large as it is desired.
    pub(super) async fn grow_volumes(&self, process: &DesiredProcess) -> Result<(), Error> {
        if process.config.volume.is_empty() {
            return Ok(());
        }
        let (process, volumes) = (process.clone(), Arc::clone(&self.volumes));
        blocking(move || {
            for (configured, desired) in volumes_of(&process)? {
                volumes.grow(&desired.volume, configured.size)?;
            }
            Ok(())
        })
        .await
    }
}

/// The volumes of a process as its service configures them and as its slot has them.
fn volumes_of(process: &DesiredProcess) -> Result<Vec<(&Volume, &DesiredVolume)>, Error> {
    let configured = process.config.volume.iter();
    let pairs = configured.map(|configured| {
        let mut desired = process.volumes.iter();
        let found = desired.find(|it| it.volume.id.volume_name() == configured.name.as_str());
        let found = found.ok_or_else(|| Error::UnknownVolume(configured.name.to_string()))?;
        Ok((configured, found))
    });
    pairs.collect()
}

fn wanted(
    process: &DesiredProcess,
    configured: &Volume,
    desired: &DesiredVolume,
    layers: &[PathBuf],
) -> Wanted {
    Wanted {
        volume: desired.volume.clone(),
        may_create: desired.may_create,
        size: configured.size,
        path: configured.path.clone(),
        image: process.image.clone(),
        layers: layers.to_vec(),
    }
}

fn host_directories(
    process: &DesiredProcess,
    listed: &[PathBuf],
    own: &[&std::path::Path],
) -> Result<Vec<HostDirectory>, Error> {
    let mounts = process.config.mount.iter();
    let mounts = mounts.filter_map(|mount| Some((mount, mount.host.as_deref()?)));
    let directories = mounts.map(|(mount, path)| {
        Ok(HostDirectory {
            source: host::resolve(path, listed, own)?,
            destination: mount.path.clone().into(),
            is_read_only: mount.read_only,
        })
    });
    directories.collect()
}
