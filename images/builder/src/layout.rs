//! A finished image: the files of an OCI layout (OCI image specification, "Image Layout").

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::layer::{Compression, Entry, Layer};

/// The files of an OCI layout, by path. Tests may change, add and remove them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Content by path, such as `index.json`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The image's manifest.
    pub manifest_digest: String,
}

impl Layout {
    /// Writes the layout as a directory.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_directory(&self, directory: &Path) -> Result<()> {
        for (path, content) in &self.files {
            let path = directory.join(path);
            let parent = path.parent().unwrap_or(directory);
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, content))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether the directory holds this layout.
    pub fn is_at(&self, directory: &Path) -> bool {
        let same = |(path, content): (&String, &Vec<u8>)| {
            fs::read(directory.join(path)).is_ok_and(|found| found == *content)
        };
        self.files.iter().all(same)
    }

    /// The layout as a tar.
    ///
    /// # Errors
    /// If a path cannot be expressed in a tar.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let files: Vec<(&str, &[u8])> = self
            .files
            .iter()
            .map(|(path, content)| (path.as_str(), &content[..]))
            .collect();
        archive_of(&files)
    }
}

/// A tar of these files in this order: for archives whose order matters.
///
/// # Errors
/// If a path cannot be expressed in a tar.
pub fn archive_of(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let entries: Vec<Entry> = files
        .iter()
        .map(|(path, content)| Entry::file(path, *content))
        .collect();
    Ok(Layer::new(&entries, Compression::None)?.blob)
}

/// `sha256:` and the digest in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Where a blob of this digest is in a layout.
pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}
