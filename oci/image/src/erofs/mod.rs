//! A layer as one file, an EROFS file system that the kernel mounts: no file is created for what the layer holds.
//!
//! - `image`: takes a layer's entries: data goes to the file as it comes, all else into a `tree`;
//! - `tree`: what the entries make of each other;
//! - `index`: writes the tree behind the data;
//! - `format`: EROFS on the disk;
//! - `mount`: mounting and unmounting.
//!
//! The file: 4 KiB with the superblock, the files' data, the inodes with their attributes, and what directories and
//! symbolic links hold.

mod format;
mod image;
mod index;
pub(crate) mod mount;
mod output;
mod tree;

pub(crate) use image::{Indexer, try_it};
