//! The bundle of every contender: the default sandbox (no capabilities, no_new_privs, a filter as long as Docker's,
//! masked and read-only paths, limits of memory, CPU and processes) around a static program that exits at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use tucano_oci_runtime::{cgroup::Cgroup, profile::Sandbox};

use crate::{
    filter,
    place::{Workspace, compile},
};

/// Parent of every contender's cgroups.
pub(crate) const CGROUPS: &str = "tucano-bench-start";
pub(crate) const MEMORY_BYTES: u64 = 64 << 20;
const PIDS: u32 = 100;

/// The bundle, and the floor's program and filters.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    /// State directories of runtimes.
    pub(crate) state: PathBuf,
    pub(crate) floor: PathBuf,
    pub(crate) spec: Spec,
}

impl Bundle {
    pub(crate) fn make(place: &Workspace) -> Result<Self> {
        let directory = place.directory("bundle")?;
        make_root(&directory.join("rootfs"))?;
        let tools = place.directory("tools")?;
        let floor = tools.join("floor");
        compile(include_str!("floor.c"), &floor)?;
        let sandbox = Sandbox {
            args: vec!["/true".into()],
            env: vec!["PATH=/".into()],
            hostname: "bench".into(),
            memory_bytes: MEMORY_BYTES,
            cpus: Some(1.0),
            pids: PIDS,
            read_only: true,
            ..Sandbox::default()
        };
        let spec = sandbox.spec()?;
        let listed = filter::listed(&spec)?;
        fs::write(tools.join("list"), filter::list(&listed)?)?;
        fs::write(tools.join("tree"), filter::tree(&listed)?)?;
        Ok(Self {
            state: place.in_memory("state")?,
            directory,
            floor,
            spec,
        })
    }

    /// One of the floor's filters.
    pub(crate) fn filter(&self, name: &str) -> PathBuf {
        self.floor.with_file_name(name)
    }

    /// A bundle for one container, which differs only in its cgroup.
    pub(crate) fn of_container(&self, id: &str) -> Result<PathBuf> {
        let directory = self.directory.join(id);
        let mut spec = serde_json::to_value(&self.spec)?;
        // The newest version that every contender accepts.
        spec["ociVersion"] = "1.0.2".into();
        spec["linux"]["cgroupsPath"] = format!("/{CGROUPS}/{id}").into();
        spec["root"]["path"] = self.root().display().to_string().into();
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("config.json"), spec.to_string())?;
        Ok(directory)
    }

    /// The shared root file system.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("rootfs")
    }
}

/// Kills remaining containers of every contender and removes their cgroups.
pub(crate) fn remove_cgroups() -> Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(top).into_iter().flatten().flatten();
    let places = below.map(|entry| entry.path()).chain([top.to_owned()]);
    let directories = places
        .map(|hierarchy| (String::new(), hierarchy.join(CGROUPS)))
        .filter(|(_, directory)| directory.join("cgroup.procs").exists())
        .collect();
    Ok(Cgroup { directories }.destroy()?)
}

/// Contains every mount point, so that no contender has to create one.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    for name in ["proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(name)).with_context(|| root.display().to_string())?;
    }
    compile(include_str!("true.c"), &root.join("true"))
}
