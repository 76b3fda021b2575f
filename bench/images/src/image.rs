//! Images of about a size, made of what is installed here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use tucano_image_builder::{Compression, ImageSpec, Layer};

use crate::place::run;

const SMALL: &[&str] = &["/usr/share/zoneinfo", "/usr/share/mime"];
const MIDDLE: &[&str] = &[
    "/usr/share/zoneinfo",
    "/usr/share/perl",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/share/mime",
];
const LARGE: &[&str] = &[
    "/usr/share/zoneinfo",
    "/usr/share/doc",
    "/usr/share/locale",
    "/usr/share/man",
    "/usr/include",
    "/usr/lib",
];

/// An image, ready for every contender.
#[derive(Debug)]
pub(crate) struct Image {
    /// OCI archive, its layers compressed with gzip.
    pub(crate) archive: PathBuf,
    /// The same layers as plain tars, lowest first.
    pub(crate) plain: Vec<PathBuf>,
    pub(crate) layers: usize,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) archive_bytes: u64,
}

/// One layer for each directory that is there.
pub(crate) fn make(megabytes: u32, directory: &Path) -> Result<Image> {
    let sources = match megabytes {
        ..=20 => SMALL,
        21..=400 => MIDDLE,
        _ => LARGE,
    };
    let mut made = Image {
        archive: directory.join("image.tar"),
        plain: Vec::new(),
        layers: 0,
        files: 0,
        bytes: 0,
        archive_bytes: 0,
    };
    let mut image = ImageSpec::new("bench");
    for source in sources.iter().map(Path::new).filter(|it| it.is_dir()) {
        let plain = directory.join(format!("{}.tar", made.layers));
        run(Command::new("tar")
            .arg("-cf")
            .arg(&plain)
            .args(["-C", "/"])
            .arg(source.strip_prefix("/")?))?;
        image = image.layer(Layer::from_tar(&fs::read(&plain)?, Compression::Gzip)?);
        made.plain.push(plain);
        made.layers += 1;
        let (files, bytes) = count(source)?;
        made.files += files;
        made.bytes += bytes;
    }
    ensure!(made.layers > 0, "none of {sources:?} is on this machine");
    fs::write(&made.archive, image.build()?.archive()?)?;
    made.archive_bytes = fs::metadata(&made.archive)?.len();
    Ok(made)
}

fn count(directory: &Path) -> Result<(usize, u64)> {
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
