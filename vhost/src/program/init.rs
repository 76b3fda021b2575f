//! The first process of a host: sets up its /proc, /sys, /run, host name and /etc/hosts, then reaps orphans until its creator has
//! ended.

use std::{ffi::OsString, fs, path::Path, process::ExitCode};

use anyhow::Context;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::sethostname,
};
use tucano_vhost::settings::{READY, Settings};

/// What to do where the kernel says EINVAL: `/` is then a plain directory, as in a chroot.
const PRIVATE_MOUNTS: &str = "cannot make the mounts of / private; a root directory that is no mount point, as in a chroot, \
    has to be one: mount --rbind it onto itself and use pivot_root, or run this outside of the chroot";

/// `init <settings>`.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    // Without its parent nothing would reap this process.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot set the parent death signal")?;
    let text = arguments
        .first()
        .and_then(|text| text.to_str())
        .context("settings are missing")?;
    let settings: Settings = serde_json::from_str(text).context("cannot read the settings")?;
    let ended = block(Signal::SIGCHLD)?;
    set_up(&settings)?;
    super::report(READY)?;
    while !super::wait_for_creator(settings.dies_with_creator, Some(&ended))? {
        while ended
            .read_signal()
            .context("cannot read signals")?
            .is_some()
        {}
        reap()?;
    }
    // The kernel kills every other process of the pid namespace with its first.
    Ok(ExitCode::SUCCESS)
}

fn set_up(settings: &Settings) -> anyhow::Result<()> {
    sethostname(&settings.name).context("cannot set the host name")?;
    let propagation = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, propagation, None::<&str>).context(PRIVATE_MOUNTS)?;
    mount_new("proc", "/proc", None)?;
    mount_sys(&settings.directory)?;
    mount_new("tmpfs", "/run", Some("mode=755,size=64m"))?;
    fs::create_dir("/run/lock").context("cannot create /run/lock")?;
    let hostname = settings.directory.join("hostname");
    fs::write(&hostname, format!("{}\n", settings.name)).context("cannot write the host's name")?;
    bind(&hostname, "/etc/hostname")?;
    bind(&settings.etc_hosts, "/etc/hosts")
}

/// sysfs shows the network namespace in which it was mounted, so each host mounts its own. The machine's cgroup mounts are moved
/// into it.
fn mount_sys(directory: &Path) -> anyhow::Result<()> {
    let saved = directory.join("cgroup");
    fs::create_dir_all(&saved).with_context(|| format!("cannot create {}", saved.display()))?;
    let cgroups = "/sys/fs/cgroup";
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(cgroups), &saved, None::<&str>, recursive, None::<&str>)
        .context("cannot bind-mount the cgroups")?;
    mount_new("sysfs", "/sys", None)?;
    mount(
        Some(&saved),
        cgroups,
        None::<&str>,
        MsFlags::MS_MOVE,
        None::<&str>,
    )
    .context("cannot move the cgroups into the new /sys")
}

fn mount_new(kind: &str, target: &str, options: Option<&str>) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), target, Some(kind), flags, options)
        .with_context(|| format!("cannot mount {kind} on {target}"))
}

/// Mounts a file over another, if that exists.
fn bind(file: &Path, target: &str) -> anyhow::Result<()> {
    if !Path::new(target).exists() {
        return Ok(());
    }
    mount(
        Some(file),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("cannot mount {} on {target}", file.display()))
}

fn block(signal: Signal) -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(signal);
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot read signals")
}

fn reap() -> anyhow::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot reap"),
        }
    }
}
