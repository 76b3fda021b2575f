//! Images of roughly a given size, result of files of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use serde_json::json;
use tucano_image_builder::{Compression, ImageSpec, Layer, build_programs};

use crate::place::run;

/// Directories of each layer.
const SMALL: &[&[&str]] = &[&["/usr/share/zoneinfo"], &["/usr/share/mime"]];
const MIDDLE: &[&[&str]] = &[
    &["/usr/share/zoneinfo"],
    &["/usr/share/perl"],
    &["/usr/lib/python3", "/usr/lib/python3.11"],
    &["/usr/share/mime"],
];
const LARGE: &[&[&str]] = &[
    &["/usr/share"],
    &["/usr/include"],
    &["/usr/lib/python3", "/usr/lib/python3.11"],
];
/// A large image has at least this many files, if necessary generated small ones.
const LARGE_FILES: usize = 100_000;
const SMALL_FILE_BYTES: usize = 1500;

/// Name of the image's program, as the kernel shows it.
pub(crate) const PROGRAM: &str = "bench-first";

/// An image in the forms that the contenders need.
#[derive(Debug)]
pub(crate) struct Image {
    /// OCI archive with gzip-compressed layers.
    pub(crate) archive: PathBuf,
    /// The layers as uncompressed tars, lowest first.
    pub(crate) plain: Vec<PathBuf>,
    /// Archive of `docker save` with uncompressed layers, if `skopeo` is available.
    pub(crate) docker: Option<PathBuf>,
    pub(crate) layers: usize,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) archive_bytes: u64,
}

/// Creates an image with one layer per group of existing directories.
pub(crate) fn make(megabytes: u32, directory: &Path, with_program: bool) -> Result<Image> {
    let sources = match megabytes {
        ..=20 => SMALL,
        21..=400 => MIDDLE,
        _ => LARGE,
    };
    let mut result = Image {
        archive: directory.join("image.tar"),
        plain: Vec::new(),
        docker: None,
        layers: 0,
        files: 0,
        bytes: 0,
        archive_bytes: 0,
    };
    let mut image = ImageSpec::new("bench");
    for group in sources {
        let here = group.iter().map(PathBuf::from).filter(|it| it.is_dir());
        let here: Vec<PathBuf> = here.collect();
        if !here.is_empty() {
            image = image.layer(add_layer(&mut result, directory, &here)?);
        }
    }
    ensure!(result.layers > 0, "none of {sources:?} is on this machine");
    if megabytes > 400 && result.files < LARGE_FILES {
        let more = directory.join("more");
        make_files(&more, LARGE_FILES - result.files)?;
        image = image.layer(add_layer(&mut result, directory, &[more])?);
    }
    if with_program {
        let program = program_layer(directory)?;
        image = image
            .layer(add_layer_from(
                &mut result,
                directory,
                &program,
                &[PathBuf::from("/").join(PROGRAM)],
            )?)
            .edit_config(|config| config["config"]["Entrypoint"] = json!([format!("/{PROGRAM}")]));
    }
    fs::write(&result.archive, image.build()?.archive()?)?;
    result.archive_bytes = fs::metadata(&result.archive)?.len();
    result.docker = docker_archive(&result.archive, &directory.join("docker.tar"))?;
    Ok(result)
}

/// A directory with a program that keeps running.
fn program_layer(directory: &Path) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let programs = build_programs(workspace.context("there is no workspace")?)?;
    let root = directory.join("program");
    fs::create_dir_all(&root)?;
    fs::copy(programs.join("hello"), root.join(PROGRAM))?;
    Ok(root)
}

fn add_layer(result: &mut Image, directory: &Path, sources: &[PathBuf]) -> Result<Layer> {
    add_layer_from(result, directory, Path::new("/"), sources)
}

/// Adds a layer of these files, with paths relative to `root`.
fn add_layer_from(
    result: &mut Image,
    directory: &Path,
    root: &Path,
    sources: &[PathBuf],
) -> Result<Layer> {
    let plain = directory.join(format!("{}.tar", result.layers));
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&plain).arg("-C").arg(root);
    for source in sources {
        let source = source.strip_prefix("/")?;
        tar.arg(source);
        let (files, bytes) = count(&root.join(source))?;
        result.files += files;
        result.bytes += bytes;
    }
    run(&mut tar)?;
    let layer = Layer::from_tar(&fs::read(&plain)?, Compression::Gzip)?;
    result.plain.push(plain);
    result.layers += 1;
    Ok(layer)
}

fn make_files(directory: &Path, files: usize) -> Result<()> {
    for number in 0..files {
        let parent = directory.join((number / 500).to_string());
        if number % 500 == 0 {
            fs::create_dir_all(&parent)?;
        }
        let content = format!("{number}\n").repeat(SMALL_FILE_BYTES / 6);
        fs::write(parent.join(number.to_string()), content)?;
    }
    Ok(())
}

fn docker_archive(archive: &Path, to: &Path) -> Result<Option<PathBuf>> {
    let mut skopeo = Command::new("skopeo");
    skopeo
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("docker-archive:{}:bench:latest", to.display()));
    match skopeo.status() {
        Ok(status) if status.success() => Ok(Some(to.to_owned())),
        Ok(status) => bail!("skopeo failed: {status}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot start skopeo"),
    }
}

fn count(directory: &Path) -> Result<(usize, u64)> {
    if directory.is_file() {
        return Ok((1, fs::metadata(directory)?.len()));
    }
    let (mut files, mut bytes) = (0, 0);
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        files += 1;
        if metadata.is_dir() {
            let (more_files, more_bytes) = count(&entry.path())?;
            files += more_files;
            bytes += more_bytes;
        } else {
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
}
