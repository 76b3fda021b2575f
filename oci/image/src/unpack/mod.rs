//! Unpacked layers, each a directory or a file that the kernel mounts, for use as overlayfs lower directories.

pub(crate) mod chain;
pub(crate) mod directories;
pub(crate) mod helper;
pub(crate) mod layers;
pub(crate) mod make;
pub(crate) mod paths;
pub(crate) mod writer;
