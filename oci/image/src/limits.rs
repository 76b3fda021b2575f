//! Limits of the input.

use serde::{Deserialize, Serialize};

/// The limits of the input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limits {
    /// Largest archive, as sent and, if it is compressed as a whole, also decompressed.
    pub archive_bytes: u64,
    /// Largest manifest, index or image configuration.
    pub document_bytes: u64,
    /// Largest decompressed layer.
    pub layer_bytes: u64,
    /// Most headers of a layer or an archive, and so most entries.
    pub layer_entries: u64,
    /// Most layers of an image.
    pub layers: usize,
    /// Largest sum of the extended attributes of a layer's entries.
    #[serde(default = "default_layer_xattr_bytes")]
    pub layer_xattr_bytes: u64,
    /// Most memory for a layer's tree of names, links and attributes. A larger layer is unpacked into directories.
    #[serde(default = "default_layer_tree_bytes")]
    pub layer_tree_bytes: u64,
}

fn default_layer_xattr_bytes() -> u64 {
    64 << 20
}

fn default_layer_tree_bytes() -> u64 {
    128 << 20
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 8 << 30,
            document_bytes: 4 << 20,
            layer_bytes: 32 << 30,
            layer_entries: 2_000_000,
            layers: 128,
            layer_xattr_bytes: default_layer_xattr_bytes(),
            layer_tree_bytes: default_layer_tree_bytes(),
        }
    }
}

/// Longest path of an entry: the kernel's PATH_MAX without the final NUL.
pub(crate) const PATH_BYTES: usize = 4095;
/// Longest name within a path (NAME_MAX).
pub(crate) const NAME_BYTES: usize = 255;
/// Deepest directory of a layer. Removing a tree holds one descriptor for each level.
pub(crate) const PATH_DEPTH: usize = 256;
/// Largest extension of one entry's header: long names and extended attributes together.
pub(crate) const EXTENSION_BYTES: u64 = 1 << 20;
/// Largest value of an extended attribute (XATTR_SIZE_MAX).
pub(crate) const XATTR_BYTES: usize = 64 << 10;
/// Most entries of a layer that becomes an EROFS image: they are in memory, about 200 bytes each.
pub(crate) const INDEXED_ENTRIES: usize = 250_000;
/// Most levels of indexes within indexes.
pub(crate) const INDEX_DEPTH: usize = 4;
/// Most entries of an index and its nested indexes: each may cause reading a document.
pub(crate) const INDEX_ENTRIES: usize = 10_000;
/// Most images of a Docker archive.
pub(crate) const DOCKER_IMAGES: usize = 1_000;
/// Most files of a Docker archive outside of `blobs/`.
pub(crate) const DOCKER_FILES: usize = 10_000;
/// Longest chain of links from a layer's name in a Docker archive to its file.
pub(crate) const DOCKER_LINKS: usize = 8;
/// Largest window of a zstd stream, as a power of two of bytes: `zstd -19` needs 2^23, and `--ultra -22` and `--long` 2^27.
/// The window is allocated only for a stream that declares it.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 27;
