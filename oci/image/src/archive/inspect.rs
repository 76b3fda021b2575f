//! What a container of a stored image would find in it: its programs and its users, without unpacking a layer.

use std::sync::Arc;

use crate::{
    content::store::Store,
    error::Error,
    manifest::image::Image,
    outline::{Item, Outline},
};

/// Most symbolic links in one path, as in the kernel (MAXSYMLINKS).
const LINKS: usize = 40;

/// The files of an image that decide what it can start.
#[derive(Debug)]
pub struct Contents {
    /// Lowest first.
    layers: Vec<Arc<Outline>>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An executable file with the first bytes of its content, or one of the files of accounts with all of it.
    File {
        /// Its permissions.
        mode: u32,
        /// Its content, or the beginning of it.
        bytes: Vec<u8>,
    },
    /// No executable file.
    Nothing,
    /// Something else than a file.
    Other,
}

impl Store {
    /// The contents of a stored image whose layers were checked; `None` if a layer is too large to be described. Layers
    /// that were not read lately are read again.
    ///
    /// # Errors
    /// If a layer is not stored, damaged, or cannot be read.
    pub fn contents(&self, image: &Image) -> Result<Option<Contents>, Error> {
        let mut layers = Vec::new();
        for (descriptor, diff_id) in image.layers() {
            if self.outlines().get(&diff_id).is_none() {
                self.layer(&descriptor, &diff_id, self.limits())?
                    .check(self.outlines())?;
            }
            match self.outlines().get(&diff_id) {
                Some(outline) => layers.push(outline),
                None => return Ok(None),
            }
        }
        Ok(Some(Contents { layers }))
    }
}

impl Contents {
    /// What is at an absolute path, with symbolic links followed within the image.
    pub fn find(&self, path: &[u8]) -> Found {
        let mut names = names_backwards(path);
        let mut resolved: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == b".." {
                resolved.pop();
                continue;
            }
            resolved.push(name);
            match self.item(&resolved.join(&b'/')) {
                Some(Item::Symlink(target)) => {
                    links += 1;
                    if links > LINKS {
                        return Found::Nothing;
                    }
                    resolved.pop();
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    names.append(&mut names_backwards(target));
                }
                Some(Item::File { mode, bytes }) if names.is_empty() => {
                    return Found::File {
                        mode: *mode,
                        bytes: bytes.to_vec(),
                    };
                }
                Some(Item::Special) if names.is_empty() => return Found::Other,
                // Directories are not recorded, unless they are opaque.
                None | Some(Item::OpaqueDirectory) => {}
                // Plain directories below an opaque one are not recorded either.
                Some(Item::Hidden) if !names.is_empty() => {}
                Some(_) => return Found::Nothing,
            }
        }
        Found::Nothing
    }

    /// The text of `etc/passwd` or `etc/group`; empty if there is none, and nothing if it is not known, since a link leads
    /// to it.
    pub fn accounts(&self, path: &str) -> Option<Vec<u8>> {
        if matches!(self.item(b"etc"), Some(Item::Symlink(_))) {
            return None;
        }
        match self.item(path.as_bytes()) {
            Some(Item::File { bytes, .. }) => Some(bytes.to_vec()),
            Some(Item::Symlink(_)) => None,
            _ => Some(Vec::new()),
        }
    }

    /// The number of entries with an owner or group above 65535, which does not exist in a container.
    pub fn high_ids(&self) -> u64 {
        self.layers.iter().map(|layer| layer.high_ids()).sum()
    }

    fn item(&self, path: &[u8]) -> Option<&Item> {
        let mut layers = self.layers.iter().rev();
        layers.find_map(|layer| layer.get(path))
    }
}

fn names_backwards(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect()
}
