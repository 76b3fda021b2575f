//! OCI images: archives in, a content-addressed store, safe unpacking into layer directories.
//! Knows nothing of clusters. Blocking; callers on an async runtime use its blocking threads.
//!
//! What comes in is never trusted: every byte is counted against [`Limits`] and hashed, every path is
//! checked, and nothing becomes visible before everything is whole and on disk.
//!
//! - [`Store`] (`store`, with `ingest` and [`Upload`] for what is not whole yet, `coming` for who may look at it, `archive` for OCI archives,
//!   whose layers `early` checks while they come);
//! - [`Image`] (`image`, with `resolve` for the way from an archive's index to the one image for this machine, and
//!   `pushed` for that from a registry's);
//! - [`Layers`] (`layers`, with `unpack` for the writer, `directories` for its cache of open ones; or `erofs`, which
//!   makes one file of a layer that the kernel mounts; `seal` finds what the disk has damaged);
//! - `make` makes one layer of a blob, which may still be coming; `helper` lets a process that is confined do it;
//! - `layer` reads and checks a layer's blob; `stream` inflates it beside; `tarball`, `header` and `sparse` read tar;
//! - `scratch`: directories that vanish unless they are finished, even after a crash; `writeback` has the disk write meanwhile.
//!
//! On disk, below the store's root: `blobs/sha256/<hex>`, `blobs/sha512/<hex>` and `ingest/.tmp-*/`; below that of the layers:
//! `<hex of diff-id>/`, or `<hex of diff-id>.erofs` with its mount on `.mnt/`; `.seal` beside either; and `.tmp-*/`.

mod archive;
mod attributes;
mod coming;
mod digest;
mod directories;
mod directory;
mod docker;
mod document;
mod early;
mod erofs;
mod error;
mod header;
mod helper;
mod image;
mod ingest;
mod layer;
mod layers;
mod limits;
mod make;
mod names;
mod parallel;
mod path;
mod place;
mod pushed;
mod resolve;
mod scratch;
mod seal;
mod sparse;
mod store;
mod stream;
mod tarball;
mod unpack;
mod upload;
mod writeback;

pub use coming::Told;
pub use digest::{digest_like, digest_of};
pub use error::Error;
pub use helper::{Helper, serve};
pub use image::{Image, Platform};
pub use layers::{Form, Layers};
pub use limits::Limits;
pub use oci_spec::image::Digest;
pub use store::Store;
pub use upload::Upload;
