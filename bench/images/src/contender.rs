//! What is measured. Each run is a process (or a shell with its children), whose CPU time and memory the kernel
//! counts. The work of daemons is not included in these two figures.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use tucano_oci_image::{Form, Helper, Layers, Limits, Platform, Store};

use crate::{daemon::Daemon, image::Image};

/// A tool that runs an archive into a tree of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Import into the store (digests and paths checked, synced) and unpack each layer (synced).
    Ours,
    /// The same with layers as EROFS images, mounted.
    OursErofs,
    /// Take the archive apart, then `gzip -dc | tar -x` for each layer in order.
    Floor,
    /// `tar -x` of uncompressed layers: creates the files and does nothing else.
    PlainTar,
    /// `umoci unpack` of the archive's layout.
    Umoci,
    /// `podman load` into a private root.
    Podman,
    /// `buildah pull` into a private root: podman's storage without podman.
    Buildah,
    /// `docker load` into a private daemon, from an archive with uncompressed layers.
    Docker,
    /// `ctr image import` into a private daemon, including unpacking.
    Ctr,
}

/// Result of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measurement {
    /// Wall time in seconds.
    pub(crate) wall: f64,
    /// CPU time in seconds of the process and its children, user and system, without daemons.
    pub(crate) cpu: f64,
    /// Peak memory of the largest process, without daemons.
    pub(crate) peak_mib: f64,
}

impl Contender {
    /// The contenders whose programs are installed.
    pub(crate) fn available() -> Vec<Self> {
        let all = [
            (Self::Ours, "tar"),
            (Self::OursErofs, "tar"),
            (Self::Floor, "gzip"),
            (Self::PlainTar, "tar"),
            (Self::Umoci, "umoci"),
            (Self::Podman, "podman"),
            (Self::Buildah, "buildah"),
            (Self::Docker, "dockerd"),
            (Self::Ctr, "ctr"),
        ];
        let (here, missing): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, tool)| is_installed(tool));
        for (_, tool) in missing {
            eprintln!("bench: {tool} is not installed: left out");
        }
        here.into_iter().map(|(contender, _)| contender).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursErofs => "ours, mounted",
            Self::Floor => "floor (gzip -dc, tar -x)",
            Self::PlainTar => "tar -x of plain layers",
            Self::Umoci => "umoci unpack",
            Self::Podman => "podman load",
            Self::Buildah => "buildah pull",
            Self::Docker => "docker load",
            Self::Ctr => "ctr image import",
        }
    }

    /// Runs once, into an empty directory. Daemons are started before the measurement.
    pub(crate) fn run(self, image: &Image, into: &Path) -> Result<Measurement> {
        let archive = image.archive.display();
        let storage = "--root $PWD/root --runroot $PWD/run --storage-driver overlay";
        let script = match self {
            Self::Ours => {
                let program = std::env::current_exe()?;
                format!("exec {} ours {archive} $PWD", program.display())
            }
            Self::OursErofs => {
                let program = std::env::current_exe()?;
                format!("exec {} ours --erofs {archive} $PWD", program.display())
            }
            Self::Floor => format!(
                "mkdir layout && tar -xf {archive} -C layout
                 for blob in $(ls -S layout/blobs/sha256); do
                     if [ \"$(head -c 2 layout/blobs/sha256/$blob | od -An -tx1)\" = ' 1f 8b' ]; then
                         mkdir $blob && gzip -dc < layout/blobs/sha256/$blob | tar -xp -C $blob
                     fi
                 done"
            ),
            Self::PlainTar => {
                let each = image.plain.iter().enumerate().map(|(number, layer)| {
                    format!("mkdir {number} && tar -xpf {} -C {number}\n", layer.display())
                });
                each.collect()
            }
            Self::Umoci => format!(
                "mkdir layout && tar -xf {archive} -C layout && umoci unpack --image layout:latest bundle"
            ),
            Self::Podman => format!("podman {storage} load --quiet --input {archive}"),
            Self::Buildah => format!("buildah {storage} pull --quiet --policy always oci-archive:{archive}"),
            Self::Docker => {
                let archive = image.docker.as_ref().context("no archive for Docker")?;
                format!("docker -H unix://$PWD/socket load --quiet --input {}", archive.display())
            }
            Self::Ctr => format!("ctr --address $PWD/socket image import {archive} > imported"),
        };
        let _daemon = match self {
            Self::Docker => Some(Daemon::docker(into)?),
            Self::Ctr => Some(Daemon::containerd(into)?),
            _ => None,
        };
        timed(&script, into).with_context(|| self.name())
    }
}

/// Runs this project's import once, in this process.
pub(crate) fn run_ours(archive: &Path, into: &Path, form: Form) -> Result<()> {
    let store = Store::open(&into.join("store"), Limits::default())?;
    let layers = Layers::open_in_form(&into.join("layers"), Limits::default(), form)?;
    layers.use_helper(Helper {
        program: "/proc/self/exe".into(),
        arguments: vec!["unpack-layer".into()],
    })?;
    let image = store.import_archive(File::open(archive)?, &Platform::host())?;
    layers.unpack_all(&store, &image.layers())?;
    Ok(())
}

fn timed(script: &str, directory: &Path) -> Result<Measurement> {
    let peak = directory.join("peak");
    let script = format!("set -e\n{script}");
    let begin = Instant::now();
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%U %S %M", "-o"])
        .arg(&peak)
        .args(["sh", "-c", &script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("cannot start /usr/bin/time")?;
    let wall = begin.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!(
            "it failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = std::fs::read_to_string(&peak)?;
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    let [user, system, peak_kib] = figures[..] else {
        bail!("time wrote {text:?}");
    };
    Ok(Measurement {
        wall,
        cpu: user + system,
        peak_mib: peak_kib / 1024.0,
    })
}

pub(crate) fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}
