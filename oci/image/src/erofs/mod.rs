//! Writes a layer as one file, an EROFS file system that the kernel mounts: no file is created for each entry.
//!
//! - `image`: receives the entries: data goes to the file at once, everything else into a tree in memory;
//! - `index`: writes the tree after the data;
//! - `format`: the on-disk format;
//! - `output`: the buffered file with its checksum.
//!
//! The file contains, in order: 4 KiB with the superblock, the files' data, the inodes with their attributes, and the
//! content of directories and symbolic links.

mod format;
mod image;
mod index;
mod output;

pub(crate) use image::{ImageWriter, probe};
