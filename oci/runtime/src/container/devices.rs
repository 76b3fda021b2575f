//! `/dev`: the default devices and links (OCI runtime specification, "Default Devices"), and the specification's own.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, OFlags, Uid, makedev};

use super::{
    inside::{Links, Root},
    mounts::links,
    userns::Ids,
};
use crate::channel::{Failure, Step};

/// Name, major and minor number: all stateless, none reaches the host.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Makes them all, owned by the container's root.
pub(crate) fn make(root: &Root, ids: &Ids, own: &[LinuxDevice]) -> Result<(), Failure> {
    for (path, major, minor) in DEFAULT {
        let device = Device {
            path: Path::new(path),
            kind: FileType::CharacterDevice,
            mode: 0o666,
            number: makedev(major, minor),
            owner: ids.root(),
        };
        device.make(root)?;
    }
    for device in own {
        Device::of(device, ids)?.make(root)?;
    }
    for (path, target) in LINKS {
        link(root, Path::new(path), target, ids)?;
    }
    Ok(())
}

struct Device<'a> {
    path: &'a Path,
    kind: FileType,
    mode: u32,
    number: u64,
    owner: (u32, u32),
}

impl<'a> Device<'a> {
    fn of(wanted: &'a LinuxDevice, ids: &Ids) -> Result<Self, Failure> {
        let kind = match wanted.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return Err(Failure::new("devices", "type `a` is no device")),
        };
        let owner = ids
            .host_uid(wanted.uid().unwrap_or(0))
            .zip(ids.host_gid(wanted.gid().unwrap_or(0)))
            .ok_or("the owner is not mapped")
            .step("devices")?;
        let number = |value: i64| match kind {
            // A pipe has none, whatever the specification says.
            FileType::Fifo => Ok(0),
            _ => u32::try_from(value).step("device number"),
        };
        Ok(Self {
            path: wanted.path(),
            kind,
            mode: wanted.file_mode().unwrap_or(0o666),
            number: makedev(number(wanted.major())?, number(wanted.minor())?),
            owner,
        })
    }

    fn make(&self, root: &Root) -> Result<(), Failure> {
        let step = format!("making the device {}", self.path.display());
        let links = links(self.path);
        root.make_node(self.path, self.kind, self.mode, self.number, links)
            .step(&step)?;
        let made = root
            .open(self.path, OFlags::PATH | OFlags::NOFOLLOW, links)
            .step(&step)?;
        let found = rustix::fs::fstat(&made).step(&step)?;
        if FileType::from_raw_mode(found.st_mode) != self.kind || found.st_rdev != self.number {
            return Err(Failure::new(&step, "something else is there already"));
        }
        let (uid, gid) = self.owner;
        if (found.st_uid, found.st_gid) == self.owner {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).step(&step)
    }
}

fn link(root: &Root, path: &Path, target: &str, ids: &Ids) -> Result<(), Failure> {
    let step = format!("making the link {}", path.display());
    ids.as_root(|| {
        let (parent, name) = root.parent(path, Links::Refused).step(&step)?;
        match rustix::fs::symlinkat(target, parent, name) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => other.step(&step),
        }
    })
}
