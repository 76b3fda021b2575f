//! `linux.netDevices` (runtime specification 1.3): devices of the starter's network namespace that move into the
//! container's. They end with that namespace, or return to the host if they are hardware.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{namespaces::lists, netlink::Netlink};
use crate::channel::{Failure, Step};

const STEP: &str = "linux.netDevices";

/// Longest name of a device (IFNAMSIZ, without the NUL).
const NAME_BYTES: usize = 15;

/// The devices of a specification, and a socket of the namespace that has them.
#[derive(Debug)]
pub(crate) struct NetDevices {
    host: Option<Netlink>,
    devices: Vec<Device>,
}

#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    /// In the container.
    new_name: String,
}

/// Why the devices cannot be moved.
pub(crate) fn check(spec: &Spec) -> Result<(), String> {
    let devices = devices(spec);
    if devices.is_empty() {
        return Ok(());
    }
    if !lists(spec, Kind::Network) {
        return Err(
            "linux.netDevices needs a network namespace: list one in linux.namespaces".into(),
        );
    }
    if lists(spec, Kind::User) {
        return Err("linux.netDevices is not supported in a user namespace".into());
    }
    let mut names = BTreeSet::new();
    for device in &devices {
        for name in [&device.name, &device.new_name] {
            if !is_name(name) {
                return Err(format!(
                    "linux.netDevices: {name:?} is not the name of a device"
                ));
            }
        }
        if !names.insert(&device.new_name) {
            let name = &device.new_name;
            return Err(format!(
                "linux.netDevices: two devices are to be named {name:?}"
            ));
        }
    }
    Ok(())
}

impl NetDevices {
    /// Called in the starter's network namespace.
    pub(crate) fn open(spec: &Spec) -> Result<Self, Failure> {
        let devices = devices(spec);
        let host = match devices.is_empty() {
            true => None,
            false => Some(Netlink::open().step(STEP)?),
        };
        Ok(Self { host, devices })
    }

    /// Moves the devices into this process's network namespace, which is not `host_network`.
    pub(crate) fn take(&self, host_network: u64) -> Result<(), Failure> {
        let Some(host) = &self.host else {
            return Ok(());
        };
        let namespace = File::open("/proc/self/ns/net").step(STEP)?;
        if namespace.metadata().step(STEP)?.ino() == host_network {
            let message = "the container's network namespace is the host's, which has the devices";
            return Err(Failure::new(STEP, message));
        }
        let own = Netlink::open().step(STEP)?;
        // A virtual device that was moved ends with the namespace, so nothing moves unless all can.
        let step = |device: &Device| format!("{STEP}: {}", device.name);
        for device in &self.devices {
            device.check(host, &own).step(&step(device))?;
        }
        for device in &self.devices {
            let taken = device.take(host, &own, &namespace);
            taken.step(&step(device))?;
        }
        Ok(())
    }
}

impl Device {
    /// Whether the host has it, and the container's namespace has room for its name.
    fn check(&self, host: &Netlink, own: &Netlink) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        host.index(&self.name).map_err(text)?;
        match own.index(&self.new_name) {
            Ok(_) => Err(format!(
                "the container's network namespace has a device {:?} already",
                self.new_name
            )),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(error) => Err(text(error)),
        }
    }

    /// Its global, permanent addresses move with it, and it is up then.
    fn take(&self, host: &Netlink, own: &Netlink, namespace: &File) -> io::Result<()> {
        let index = host.index(&self.name)?;
        let addresses = host.addresses(index)?;
        host.move_device(index, namespace.as_raw_fd(), &self.new_name)?;
        // Another device of the namespace may have had its index.
        let index = own.index(&self.new_name)?;
        for address in &addresses {
            own.add_address(index, address)?;
        }
        own.set_up(index)
    }
}

/// The devices, sorted by their names.
fn devices(spec: &Spec) -> Vec<Device> {
    let linux = spec.linux().as_ref();
    let all = linux.and_then(|linux| linux.net_devices().as_ref());
    let mut devices: Vec<_> = all
        .into_iter()
        .flatten()
        .map(|(name, device)| {
            let new_name = device.name().clone().filter(|name| !name.is_empty());
            Device {
                name: name.clone(),
                new_name: new_name.unwrap_or_else(|| name.clone()),
            }
        })
        .collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices
}

/// As the kernel has it; `%` would begin a pattern.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=NAME_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests;
