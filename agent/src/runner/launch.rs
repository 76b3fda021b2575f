//! The launch description of a container: what its image and its service ask for, within what the node allows.

use std::{os::fd::AsRawFd, path::Path};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use tucano_api::{ids::NodeName, service::ServiceConfig};
use tucano_oci_runtime::{
    launch::{self, Launch, Rootfs},
    profile::{HostDirectory, HostFile, ResourceLimit, Sandbox},
};

use super::{
    container::{self, Identity},
    execute::{Error, Executor},
    images::{self, MountedImage, ProcessImages},
    network::Lease,
    state::Record,
};

impl Executor {
    /// The launch description of a process's container, without its network namespace: see [`join`].
    pub(super) fn launch_description(
        &self,
        record: &Record,
        images: &ProcessImages,
        node: &NodeName,
        directories: Vec<HostDirectory>,
    ) -> Result<Launch, Error> {
        let process = &record.process;
        let image = images.own.as_ref();
        let directory = self.data.process(&process.id);
        let lease = record.lease.ok_or(Error::NoLease)?;
        let command = container::command(&image.config, process);
        if command.is_empty() {
            return Err(Error::NoCommand);
        }
        let etc = directory.etc();
        let written = ["hosts", "hostname", "resolv.conf"].map(|name| HostFile {
            source: etc.join(name),
            destination: Path::new("/etc").join(name),
            is_executable: false,
        });
        let configured = process.config.file.iter().enumerate();
        let configured = configured.map(|(number, file)| HostFile {
            source: container::file_path(&directory.files(), number),
            destination: file.path.clone().into(),
            is_executable: file.mode.is_executable(),
        });
        let secrets = process.config.secret.iter().enumerate();
        let secrets = secrets.filter_map(|(number, secret)| {
            Some(HostFile {
                source: self.secrets.file_path(&process.id, number),
                destination: secret.path()?.into(),
                is_executable: secret.mode.is_executable(),
            })
        });
        let config = image.config.config().as_ref();
        let sandbox = Sandbox {
            args: command,
            env: container::environment(
                &image.config,
                Identity {
                    process,
                    node,
                    needs: &self.network.visible(lease.ip),
                },
            ),
            cwd: process
                .config
                .working_dir
                .clone()
                .or_else(|| config.and_then(|config| config.working_dir().clone()))
                .unwrap_or_default(),
            hostname: process
                .config
                .hostname
                .clone()
                .unwrap_or_else(|| process.id.to_string()),
            limits: process
                .config
                .ulimits
                .iter()
                .map(|(name, limit)| ResourceLimit {
                    name: name.to_ascii_uppercase(),
                    soft: limit.soft.0,
                    hard: limit.hard.0,
                })
                .collect(),
            sysctls: process.config.sysctls.clone(),
            memory_bytes: process.config.memory.0,
            cpus: process.config.cpus,
            pids: process.config.pids,
            cgroup: format!("{}/{}", self.cgroup, process.id),
            // Not connected yet: see `join`.
            network: None,
            user_namespace: self.ids_base(lease),
            capabilities: capabilities(
                &process.config,
                self.user_namespaces || self.caps_without_user_namespaces,
            )?,
            read_only: process.config.read_only,
            tmp_bytes: process.config.tmp_size.map(|size| size.0),
            shared_memory_bytes: process.config.shm_size.map(|size| size.0),
            tmpfs: process
                .config
                .mount
                .iter()
                .filter_map(|mount| Some((mount.path.clone().into(), mount.tmpfs?.0)))
                .collect(),
            directories,
            files: written
                .into_iter()
                .chain(configured)
                .chain(secrets)
                .collect(),
        };
        let images_user = || config.and_then(|config| config.user().clone());
        Ok(Launch {
            id: process.id.to_string(),
            state_dir: directory.home(),
            spec: sandbox.spec()?,
            rootfs: Rootfs::Overlay {
                layers: image.layers.clone(),
                // Declared volumes are for writing, also below a read-only root.
                writable: images::volumes(&image.config)
                    .into_iter()
                    .map(|volume| Path::new("/").join(volume))
                    .collect(),
                images: images.mounted.iter().map(mounted).collect(),
            },
            user: process
                .config
                .user
                .clone()
                .or_else(images_user)
                .filter(|user| !user.is_empty()),
            logs: self.logs,
            init: process.config.init,
            environment_file: self.secrets.environment_path(process),
        })
    }

    /// The first id on the node of a container's user namespace; `None` where containers have none.
    pub(super) fn ids_base(&self, lease: Lease) -> Option<u32> {
        self.user_namespaces.then_some(lease.ids_base)
    }
}

fn mounted(image: &MountedImage) -> launch::MountedImage {
    launch::MountedImage {
        destination: image.path.clone().into(),
        layers: image.image.layers.clone(),
    }
}

/// Makes the container join a network namespace, held by a descriptor of this process.
pub(super) fn join(spec: &mut Spec, namespace: &impl AsRawFd) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let linux = spec.linux_mut().iter_mut();
    for namespace in linux.flat_map(|linux| linux.namespaces_mut().iter_mut().flatten()) {
        if namespace.typ() == LinuxNamespaceType::Network {
            namespace.set_path(Some(path.clone().into()));
        }
    }
}

/// The capabilities of the service. In a user namespace they apply to the container's own resources; without one they are
/// those of the node's root, which needs the node's consent.
fn capabilities(config: &ServiceConfig, allowed: bool) -> Result<Vec<String>, Error> {
    if allowed || config.caps.is_empty() {
        return Ok(config.caps.names().map(str::to_owned).collect());
    }
    Err(Error::Capabilities(config.caps.to_string()))
}

#[cfg(test)]
mod tests;
