//! Builds the sample services' OCI images from this workspace: no network, no container tool, and
//! the same bytes each time. Also makes images for tests, foreign and hostile ones too.
//!
//! - [`programs`]: compiles the static programs;
//! - [`sample`]: the content of a sample service's image;
//! - [`image`]: manifest and configuration around layers;
//! - [`layer`]: a layer's tar from a list of entries;
//! - [`layout`]: the finished image, as a directory or as an archive.

pub mod image;
pub mod layer;
pub mod layout;
pub mod programs;
pub mod sample;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use image::ImageSpec;
pub use layer::{Compression, Entry, Kind, Layer};
pub use layout::Layout;
pub use programs::build_programs;

/// The sample services, each with a directory below `images/`.
pub const SAMPLES: [&str; 6] = [
    "hello",
    "crash-loop",
    "slow-start",
    "memory-hog",
    "disk-hog",
    "fork-bomb",
];

/// Compiles the sample services and writes each as `<out>/<name>/` (OCI layout) and
/// `<out>/<name>.tar` (OCI archive). Returns the archives in the order of [`SAMPLES`].
///
/// # Errors
/// If cargo fails, or a file cannot be written.
pub fn build_all(workspace_root: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    build(workspace_root, out, &SAMPLES)
}

/// The same for some of the sample services.
///
/// # Errors
/// If cargo fails, or a file cannot be written.
pub fn build(workspace_root: &Path, out: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let programs = programs::build(workspace_root, names)?;
    let write = |name: &&str| {
        let layout = sample::image(name, &programs.join(name))?;
        write_layout(&layout, out, name)
    };
    names.iter().map(write).collect()
}

/// Writes an image as `<out>/<name>/` and `<out>/<name>.tar`; what is there already and the same stays
/// untouched, so that others can read it at the same time. Returns the archive's path.
///
/// # Errors
/// If a file cannot be written.
pub fn write_layout(layout: &Layout, out: &Path, name: &str) -> Result<PathBuf> {
    let (directory, archive) = (out.join(name), out.join(format!("{name}.tar")));
    let bytes = layout.archive()?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    // Concurrent builds must not mix their files.
    let turn = File::open(out).with_context(|| format!("cannot open {}", out.display()))?;
    turn.lock()
        .with_context(|| format!("cannot lock {}", out.display()))?;
    if !layout.is_at(&directory) {
        replace(&directory, |path| layout.write_directory(path))?;
    }
    if fs::read(&archive).ok().as_ref() != Some(&bytes) {
        replace(&archive, |path| Ok(fs::write(path, &bytes)?))?;
    }
    Ok(archive)
}

/// Writes beside `path` and renames, so that it is never seen half-written.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let extension = format!("{}-unfinished", std::process::id());
    let unfinished = path.with_extension(extension);
    write(&unfinished)?;
    if path.is_dir() {
        fs::remove_dir_all(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}
