//! OCI images: archives in, a content-addressed store, safe unpacking into layer directories. The crate knows nothing of
//! clusters. All calls block; an async caller runs them on its blocking threads.
//!
//! No input is trusted: every byte is counted against [`Limits`] and hashed, every path is checked, and nothing becomes
//! visible before it is complete and synced to disk.
//!
//! A module uses only modules above it in this list:
//!
//! - foundations: `limits`, `error`, `digest`, `parallel`, `mount`, `scratch` (directories that vanish unless they are
//!   persisted, even after a crash), `writeback` (flushes large writes early), `zeros` (finds future
//!   holes of files), `outline` (what a container would find in a layer), `seal` (checksums of unpacked layers);
//! - `tarball`: reads tar: headers, PAX and GNU extensions, sparse files;
//! - `content`: the content-addressed store of blobs: [`Store`], `ingest` and [`Upload`] for incomplete blobs, `pending`
//!   for complete blobs of an unfinished import;
//! - `layer`: reads and checks one layer: `stream` decompresses, `path` cleans names, `xattrs` filters attributes;
//! - `manifest`: documents: [`Image`], selection from an archive's index (`layout_index`) or a registry's (`registry_index`);
//! - `archive`: imports OCI archives and layouts, and Docker archives; `early` checks layers during the transfer;
//! - `erofs`: writes a layer as one file that the kernel mounts;
//! - `unpack`: [`Layers`], the unpacked layers: `writer` and `directories` write directories, `helper` runs the unpacking
//!   in a confined process.
//!
//! On disk, below the store's root: `blobs/sha256/<hex>`, `blobs/sha512/<hex>` and `ingest/.tmp-*/`. Below the layers'
//! root: `<hex of diff-id>/`, or `<hex of diff-id>.erofs` with its mount on `.mnt/`; `.seal` beside either; `.tmp-*/`.

mod archive;
mod content;
mod digest;
mod erofs;
mod error;
mod layer;
mod limits;
mod manifest;
mod mount;
mod outline;
mod parallel;
mod scratch;
mod seal;
mod signal;
mod tarball;
mod unpack;
mod writeback;
mod zeros;

pub use archive::{
    inspect::{Contents, Found},
    runnable::Overrides,
};
pub use content::{pending::BlobListener, store::Store, upload::Upload};
pub use digest::{digest_like, digest_of};
pub use error::Error;
pub use limits::Limits;
pub use manifest::{
    description::Description,
    healthcheck::Healthcheck,
    image::{Image, Platform},
};
pub use oci_spec::image::Digest;
pub use signal::signal_number;
pub use unpack::{
    helper::{Helper, serve},
    layers::{Form, Layers},
};
