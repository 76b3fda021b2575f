//! Checks whether containers can have user namespaces, by performing the steps of a start in a mount namespace of its
//! own.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::sched::CloneFlags;
use oci_spec::runtime::Spec;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::{
    channel::{Failure, Step},
    container::{
        resolve::Symlinks,
        rootfs::{self},
        userns::UserNamespace,
    },
    launch::{Launch, LogLimits, Rootfs},
    sys::{self, Cloned},
};

/// `tucano_oci probe-user-namespaces <directory>`: mounts an id-mapped overlay in `directory` and creates a file in
/// it.
pub fn user_namespaces(directory: &Path) -> Result<(), String> {
    let state_dir = directory.join(format!(".probe-{}", std::process::id()));
    let layer = state_dir.join("layer");
    fs::create_dir_all(&layer).map_err(|error| format!("{}: {error}", layer.display()))?;
    let outcome = in_a_process(&state_dir, layer);
    fs::remove_dir_all(&state_dir).map_err(|error| format!("{}: {error}", state_dir.display()))?;
    outcome
}

fn in_a_process(state_dir: &Path, layer: PathBuf) -> Result<(), String> {
    let flags = CloneFlags::CLONE_NEWNS;
    match sys::clone_process(flags).map_err(|error| error.to_string())? {
        Cloned::Child => {
            let outcome = try_it(state_dir, layer);
            if let Err(failure) = &outcome {
                eprintln!("{failure}");
            }
            std::process::exit(i32::from(outcome.is_err()))
        }
        Cloned::Parent(_, process) => {
            let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)
                .map_err(|error| error.to_string())?;
            match ended.and_then(|status| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err("user namespaces do not work here".into()),
            }
        }
    }
}

fn try_it(state_dir: &Path, layer: PathBuf) -> Result<(), Failure> {
    let launch = Launch {
        environment_file: None,
        id: "probe".into(),
        state_dir: state_dir.to_owned(),
        spec: Spec::default(),
        rootfs: Rootfs::Overlay {
            layers: vec![layer],
            writable: Vec::new(),
            images: Vec::new(),
        },
        user: None,
        logs: LogLimits::default(),
        init: false,
    };
    rootfs::prepare(state_dir, &launch.rootfs)?;
    let namespace = UserNamespace::probe().step("user namespace")?;
    let (root, _images) = rootfs::mount_root(launch.parts(), Some(&namespace))?;
    let made = namespace.ids.as_root(|| {
        root.file(Path::new("/file"), Symlinks::InRoot)
            .step("making a file")
    })?;
    let owner = rustix::fs::fstat(&made).step("looking at a file")?.st_uid;
    if owner == namespace.ids.root().0 {
        return Ok(());
    }
    Err(Failure::new(
        "looking at a file",
        "its owner is not the namespace's root",
    ))
}
