//! `/dev`: the default devices and links (OCI runtime specification, "Default Devices"), and those of the
//! specification.

use std::{io, os::fd::OwnedFd, path::Path};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev},
    io::Errno,
};

use super::{
    mounts::links,
    resolve::{Root, Symlinks, open_below},
    userns::IdMappings,
};
use crate::channel::{Failure, Step};

/// Name in `/dev`, major and minor number. All are stateless and none reaches the host.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Creates the devices and links, owned by the container's root.
pub(crate) fn make(root: &Root, ids: &IdMappings, own: &[LinuxDevice]) -> Result<(), Failure> {
    let directory = root.directory(Path::new("/dev"), Symlinks::Refuse);
    let directory = directory.step("making /dev")?;
    for (name, major, minor) in DEFAULT {
        let device = Device {
            name: Path::new(name),
            kind: FileType::CharacterDevice,
            mode: 0o666,
            number: makedev(major, minor),
            owner: ids.root(),
        };
        device
            .make(&directory)
            .step(&format!("making the device /dev/{name}"))?;
    }
    for device in own {
        make_own(root, ids, device)?;
    }
    ids.as_root(|| {
        LINKS.iter().try_for_each(|(name, target)| {
            link(&directory, name, target).step(&format!("making the link /dev/{name}"))
        })
    })
}

fn make_own(root: &Root, ids: &IdMappings, wanted: &LinuxDevice) -> Result<(), Failure> {
    let step = format!("making the device {}", wanted.path().display());
    let (parent, name) = root
        .parent(wanted.path(), links(wanted.path()))
        .step(&step)?;
    Device::of(wanted, name, ids)?.make(&parent).step(&step)
}

/// Owner of files that this process creates.
const OWN: (u32, u32) = (0, 0);

struct Device<'a> {
    name: &'a Path,
    kind: FileType,
    mode: u32,
    number: u64,
    owner: (u32, u32),
}

impl<'a> Device<'a> {
    fn of(wanted: &LinuxDevice, name: &'a Path, ids: &IdMappings) -> Result<Self, Failure> {
        let kind = match wanted.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(Failure::new("devices", "type `a` is not a device type"));
            }
        };
        let owner = ids
            .host_uid(wanted.uid().unwrap_or(0))
            .zip(ids.host_gid(wanted.gid().unwrap_or(0)))
            .ok_or("the owner is not mapped")
            .step("devices")?;
        let number = |value: i64| match kind {
            // A pipe has no device number.
            FileType::Fifo => Ok(0),
            _ => u32::try_from(value).step("device number"),
        };
        Ok(Self {
            name,
            kind,
            mode: wanted.file_mode().unwrap_or(0o666),
            number: makedev(number(wanted.major())?, number(wanted.minor())?),
            owner,
        })
    }

    /// Creates the device in a directory. An existing node stays if it is the same device.
    fn make(&self, parent: &OwnedFd) -> io::Result<()> {
        let mode = Mode::from(self.mode);
        match rustix::fs::mknodat(parent, self.name, self.kind, mode, self.number) {
            Ok(()) if self.owner == OWN => Ok(()),
            Ok(()) | Err(Errno::EXIST) => self.check_and_give_away(parent),
            Err(error) => Err(error.into()),
        }
    }

    /// Works on a descriptor: the name may refer to something else by now.
    fn check_and_give_away(&self, parent: &OwnedFd) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let made = open_below(parent, self.name, flags, Symlinks::Refuse)?;
        let found = rustix::fs::fstat(&made)?;
        if FileType::from_raw_mode(found.st_mode) != self.kind || found.st_rdev != self.number {
            return Err(io::Error::other("something else is there already"));
        }
        let (uid, gid) = self.owner;
        if (found.st_uid, found.st_gid) == self.owner {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let itself = AtFlags::EMPTY_PATH;
        Ok(rustix::fs::chownat(
            &made,
            "",
            Some(uid),
            Some(gid),
            itself,
        )?)
    }
}

fn link(parent: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    match rustix::fs::symlinkat(target, parent, name) {
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}
