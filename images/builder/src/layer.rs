//! A layer's tar from a list of entries, the same bytes each time. Paths are written as they are
//! given: `../../etc/x` too, since tests need hostile layers.

use std::io::{self, Write};

use anyhow::{Context, Result};
use flate2::{Compression as GzipLevel, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::layout::sha256;

/// The compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// Used by nearly every image.
    Gzip,
    /// Used by some new images.
    Zstd,
}

impl Compression {
    /// The layer's media type (OCI image specification, "Image Layer Filesystem Changeset").
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The bytes, compressed without any trace of time or machine.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn compress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut gzip = GzBuilder::new()
                    .mtime(0)
                    .write(Vec::new(), GzipLevel::new(6));
                gzip.write_all(bytes)?;
                gzip.finish()?
            }
            Self::Zstd => zstd::encode_all(bytes, 3)?,
        })
    }
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A hard link to the entry with this path.
    Hardlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// The driver.
        major: u32,
        /// The driver's device.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The driver.
        major: u32,
        /// The driver's device.
        minor: u32,
    },
}

/// One entry of a layer. Owner 0:0 and time 0 by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The raw path.
    pub path: Vec<u8>,
    /// The kind.
    pub kind: Kind,
    /// Permissions, with setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: u64,
    /// PAX records before the entry, such as `SCHILY.xattr.user.color`.
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// An entry of any kind.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Directory => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        Self {
            path: path.into(),
            kind,
            mode,
            owner: (0, 0),
            mtime: 0,
            pax: Vec::new(),
        }
    }

    /// A regular file.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(content.into()))
    }

    /// A directory.
    pub fn directory(path: &str) -> Self {
        Self::new(path, Kind::Directory)
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink(target.into()))
    }

    /// A hard link to an earlier file.
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Hardlink(target.into()))
    }

    /// With these permissions.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// With this owner and group.
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self {
            owner: (uid, gid),
            ..self
        }
    }

    /// With this time of change.
    #[must_use]
    pub fn mtime(self, seconds: u64) -> Self {
        Self {
            mtime: seconds,
            ..self
        }
    }

    /// With a PAX record before it.
    #[must_use]
    pub fn pax(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.pax.push((key.to_owned(), value.into()));
        self
    }

    fn append(&self, tar: &mut Builder<Vec<u8>>) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut pax = self.pax.clone();
        put_name(&mut header.as_old_mut().name, &self.path, "path", &mut pax);
        let (entry_type, link, content) = self.parts(&mut header)?;
        put_name(
            &mut header.as_old_mut().linkname,
            link,
            "linkpath",
            &mut pax,
        );
        header.set_entry_type(entry_type);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0.into());
        header.set_gid(self.owner.1.into());
        header.set_mtime(self.mtime);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append_pax_extensions(pax.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
        Ok(tar.append(&header, content)?)
    }

    fn parts(&self, header: &mut Header) -> io::Result<(EntryType, &[u8], &[u8])> {
        Ok(match &self.kind {
            Kind::File(content) => (EntryType::Regular, &[], content),
            Kind::Directory => (EntryType::Directory, &[], &[]),
            Kind::Symlink(target) => (EntryType::Symlink, target, &[]),
            Kind::Hardlink(target) => (EntryType::Link, target, &[]),
            Kind::Fifo => (EntryType::Fifo, &[], &[]),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                let block = matches!(self.kind, Kind::BlockDevice { .. });
                (
                    if block {
                        EntryType::Block
                    } else {
                        EntryType::Char
                    },
                    &[],
                    &[],
                )
            }
        })
    }
}

/// Into the header's fixed field, or into a PAX record where it does not fit.
fn put_name(field: &mut [u8; 100], name: &[u8], record: &str, pax: &mut Vec<(String, Vec<u8>)>) {
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    if fits < name.len() {
        pax.push((record.to_owned(), name.to_vec()));
    }
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// As it is stored.
    pub blob: Vec<u8>,
    /// Digest of the tar before compression.
    pub diff_id: String,
    /// How it is stored.
    pub compression: Compression,
}

impl Layer {
    /// Of these entries, in their order.
    ///
    /// # Errors
    /// If an entry cannot be expressed in a tar.
    pub fn new(entries: &[Entry], compression: Compression) -> Result<Self> {
        let mut tar = Builder::new(Vec::new());
        for entry in entries {
            let path = String::from_utf8_lossy(&entry.path);
            entry
                .append(&mut tar)
                .with_context(|| format!("cannot put {path} into a layer"))?;
        }
        Self::from_tar(&tar.into_inner()?, compression)
    }

    /// Of a tar as it is, whatever it holds.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn from_tar(tar: &[u8], compression: Compression) -> Result<Self> {
        Ok(Self {
            blob: compression.compress(tar)?,
            diff_id: sha256(tar),
            compression,
        })
    }
}
