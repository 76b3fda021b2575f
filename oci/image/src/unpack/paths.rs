//! The paths of one unpacked layer in either form, and the operations on them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use oci_spec::image::Digest;

use crate::{
    digest::{digest_of, from_hex, hex},
    error::Error,
    mount::{self, MountMethod},
    scratch::{Scratch, discard},
    seal::{DirectorySeal, FileSeal, Seal, is_damage},
};

const IMAGE: &str = "erofs";
const MOUNT: &str = "mnt";
const SEAL: &str = "seal";
const DAMAGED: &str = "damaged";
const CHAIN: &str = "chain";

/// The paths of one layer.
#[derive(Debug)]
pub(crate) struct LayerPaths<'a> {
    root: &'a Path,
    diff_id: &'a Digest,
    /// Unpacked as a directory.
    pub(crate) directory: PathBuf,
    /// Unpacked as an EROFS image, which is mounted on `mount_point`.
    pub(crate) image: PathBuf,
    mount_point: PathBuf,
    seal: PathBuf,
}

impl<'a> LayerPaths<'a> {
    pub(crate) fn new(root: &'a Path, diff_id: &'a Digest) -> Result<Self, Error> {
        let hex = hex(diff_id)?;
        let beside = |kind: &str| root.join(format!("{hex}.{kind}"));
        Ok(Self {
            directory: root.join(hex),
            image: beside(IMAGE),
            mount_point: beside(MOUNT),
            seal: beside(SEAL),
            root,
            diff_id,
        })
    }

    /// The directory on top of the chain of these layers, of which this one is the uppermost, with these volumes.
    pub(crate) fn chain(&self, diff_ids: &[Digest], volumes: &[Vec<u8>]) -> PathBuf {
        let ids = diff_ids.iter().map(|id| id.as_ref().as_bytes());
        let volumes = volumes.iter().map(Vec::as_slice);
        let parts: Vec<&[u8]> = ids.chain(volumes).collect();
        let id = digest_of(&parts.join(&b'\n'));
        let mut path = self.directory.clone().into_os_string();
        path.push(format!(".{CHAIN}-{}", id.digest()));
        path.into()
    }

    /// Whether the layer is unpacked.
    pub(crate) fn exist(&self) -> bool {
        self.directory.is_dir() || self.image.is_file()
    }

    /// The directory for overlays, mounted if necessary; `None` if the layer is not unpacked.
    pub(crate) fn open(&self, method: MountMethod) -> Result<Option<PathBuf>, Error> {
        if self.directory.is_dir() {
            return Ok(Some(self.directory.clone()));
        }
        if !self.image.is_file() {
            return Ok(None);
        }
        let mounted = mount::is_mounted(&self.mount_point).and_then(|is_mounted| {
            if is_mounted {
                return Ok(());
            }
            fs::create_dir_all(&self.mount_point)?;
            mount::mount(&self.image, &self.mount_point, method)
        });
        mounted.map_err(|source| Error::Mount {
            path: self.image.clone(),
            source,
        })?;
        Ok(Some(self.mount_point.clone()))
    }

    /// Writes the seal atomically.
    pub(crate) fn put_seal(&self, seal: &Seal) -> Result<(), Error> {
        let scratch = Scratch::create(self.root)?;
        let put = || -> io::Result<()> {
            let whole = scratch.path().join(SEAL);
            fs::write(&whole, seal.text())?;
            fs::rename(whole, &self.seal)
        };
        put().map_err(|source| Error::io("write", &self.seal, source))
    }

    /// Reads the layer and compares it with its seal; returns the difference, if any.
    pub(crate) fn damage(&self) -> Result<Option<String>, Error> {
        let failed = |source| Error::io("read", &self.seal, source);
        let Some(expected) = Seal::read(&self.seal).map_err(failed)? else {
            return Ok(Some("it has no seal".to_owned()));
        };
        let (path, actual) = match &expected {
            Seal::Directory(_) => {
                let actual = DirectorySeal::of(&self.directory);
                (&self.directory, actual.map(Seal::Directory))
            }
            Seal::File(_) => (&self.image, FileSeal::of(&self.image).map(Seal::File)),
        };
        match actual {
            Ok(actual) if actual == expected => Ok(None),
            Ok(_) => Ok(Some("its checksum differs".to_owned())),
            Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
            Err(source) => Err(Error::io("read", path, source)),
        }
    }

    /// Moves a damaged layer away. Containers that use it continue: a directory stays under another name until no image
    /// needs the layer.
    pub(crate) fn quarantine(&self) -> Result<(), Error> {
        self.remove_image()?;
        if self.directory.is_dir() {
            let name = |number: &u32| {
                let hex = hex(self.diff_id).ok()?;
                Some(self.root.join(format!("{hex}.{DAMAGED}-{number}")))
            };
            let free = (0..)
                .filter_map(|number| name(&number))
                .find(|path| !path.exists());
            let to = free.unwrap_or_else(|| unreachable!("a free number exists"));
            fs::rename(&self.directory, to)
                .map_err(|source| Error::io("move away", &self.directory, source))?;
        }
        remove_file(&self.seal)?;
        let synced = File::open(self.root).and_then(|root| root.sync_all());
        synced.map_err(|source| Error::io("sync", self.root, source))
    }

    /// Removes the mount and the image.
    pub(crate) fn remove_image(&self) -> Result<(), Error> {
        mount::remove(&self.mount_point)
            .map_err(|source| Error::io("unmount", &self.mount_point, source))?;
        remove_file(&self.image)
    }
}

/// The layer of a file name in the layers' directory.
pub(crate) fn layer_of(name: &str) -> Option<Digest> {
    from_hex(name.split('.').next()?)
}

/// Removes the file or directory of this name.
pub(crate) fn remove(root: &Path, name: &str) -> Result<(), Error> {
    let path = root.join(name);
    match name.rsplit_once('.') {
        Some((_, MOUNT)) => {
            mount::remove(&path).map_err(|source| Error::io("unmount", &path, source))
        }
        Some((_, IMAGE | SEAL)) => remove_file(&path),
        _ => discard(root, &path),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
