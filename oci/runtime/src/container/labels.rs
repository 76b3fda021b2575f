//! Labels of Linux security modules: AppArmor profiles of processes, SELinux labels of processes and mounts. See
//! `docs/decisions/0076-profiles-and-labels.md`.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use oci_spec::runtime::{Process, Spec};
use rustix::{
    fs::{FsWord, Mode, OFlags, XattrFlags, fsetxattr, openat, statfs},
    io::Errno,
};

use super::procfs::Proc;
use crate::channel::{Failure, Step};

const APPARMOR: &str = "AppArmor profile";
const SELINUX: &str = "SELinux label";

/// Whether AppArmor is active.
const APPARMOR_STATE: &str = "/sys/module/apparmor/parameters/enabled";

/// Mount point of selinuxfs, if SELinux is active.
const SELINUX_FS: &str = "/sys/fs/selinux";

/// Magic number of selinuxfs (`SELINUX_MAGIC` in linux/magic.h).
const SELINUX_MAGIC: FsWord = 0xf97c_ff8c;

/// The name of AppArmor's absence of a profile.
const UNCONFINED: &str = "unconfined";

/// Attribute files of a thread; AppArmor's own directory is newer than the shared one.
const APPARMOR_EXEC: [&str; 2] = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];
const EXEC: [&str; 1] = ["thread-self/attr/exec"];
const KEYCREATE: [&str; 1] = ["thread-self/attr/keycreate"];

/// File systems whose files are labelled by the policy.
const LABELLED_BY_POLICY: [&str; 2] = ["proc", "sysfs"];

/// Exists once per IPC namespace, before it is mounted: mount options cannot label it.
const PER_NAMESPACE: &str = "mqueue";

/// Mount options that set labels.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Checks whether the host can apply the labels of a process.
pub(crate) fn check_process(process: &Process) -> Result<(), String> {
    let requested = RequestedLabels::of(process);
    profile(requested.profile, has_apparmor)?;
    label("process.selinuxLabel", requested.label, has_selinux).map(drop)
}

/// Checks whether the host can apply the mount label.
pub(crate) fn check_mounts(spec: &Spec) -> Result<(), String> {
    label("linux.mountLabel", of_mounts(spec), has_selinux).map(drop)
}

/// The mount label of a specification; empty if there is none.
pub(crate) fn of_mounts(spec: &Spec) -> &str {
    let linux = spec.linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_deref());
    label.unwrap_or_default()
}

/// The option that labels a file system, if it accepts one and its options do not set one already.
pub(crate) fn option<'a>(
    label: &'a str,
    kind: &str,
    given: impl IntoIterator<Item = &'a str>,
) -> Option<(&'static str, Option<&'a str>)> {
    let is_set = given.into_iter().any(|name| CONTEXTS.contains(&name));
    let takes = kind != PER_NAMESPACE && !LABELLED_BY_POLICY.contains(&kind);
    (takes && !label.is_empty() && !is_set).then_some(("context", Some(label)))
}

/// Labels the root of a file system that accepts no label option. The policy may override it.
pub(crate) fn mark(tree: &OwnedFd, label: &str, kind: &str) -> io::Result<()> {
    if label.is_empty() || kind != PER_NAMESPACE {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(tree, ".", flags, Mode::empty())?;
    let name = "security.selinux";
    match fsetxattr(&root, name, label.as_bytes(), XattrFlags::empty()) {
        Err(Errno::NOTSUP) => Ok(()),
        other => Ok(other?),
    }
}

/// The labels that a process asks for.
#[derive(Debug, Clone, Copy, Default)]
struct RequestedLabels<'a> {
    profile: &'a str,
    label: &'a str,
}

impl<'a> RequestedLabels<'a> {
    fn of(process: &'a Process) -> Self {
        Self {
            profile: process.apparmor_profile().as_deref().unwrap_or_default(),
            label: process.selinux_label().as_deref().unwrap_or_default(),
        }
    }

    /// Fills in missing labels from another process.
    fn or(self, other: Self) -> Self {
        let either = |own: &'a str, other| if own.is_empty() { other } else { own };
        Self {
            profile: either(self.profile, other.profile),
            label: either(self.label, other.label),
        }
    }
}

/// The value for AppArmor's exec attribute. Pure: `is_active` is only called if the result depends on it.
fn profile(name: &str, is_active: impl FnOnce() -> bool) -> Result<Option<String>, String> {
    match name {
        "" => Ok(None),
        _ if name.contains('\0') => Err(format!("process.apparmorProfile {name:?} is not a name")),
        _ if is_active() => Ok(Some(format!("exec {name}"))),
        // Without AppArmor every process is unconfined.
        UNCONFINED => Ok(None),
        _ => Err(format!(
            "process.apparmorProfile is {name:?}, but AppArmor is not active on this host: leave it out, or boot with apparmor=1"
        )),
    }
}

/// The value of an SELinux label. Pure, like [`profile`].
fn label(
    field: &str,
    label: &str,
    is_active: impl FnOnce() -> bool,
) -> Result<Option<String>, String> {
    match label {
        "" => Ok(None),
        _ if label.contains('\0') => Err(format!("{field} {label:?} is not a label")),
        _ if is_active() => Ok(Some(label.to_owned())),
        _ => Err(format!(
            "{field} is {label:?}, but SELinux is not active on this host: leave it out, or enable SELinux"
        )),
    }
}

fn has_apparmor() -> bool {
    fs::read(APPARMOR_STATE).is_ok_and(|state| state.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    statfs(SELINUX_FS).is_ok_and(|found| found.f_type == SELINUX_MAGIC)
}

/// Opened attribute files of this thread and the values to write. They are opened through the host's `/proc`: the
/// container's could be anything, and a write to it could end up anywhere (CVE-2025-52881).
#[derive(Debug, Default)]
pub(crate) struct Labels {
    profile: Option<AttributeWrite>,
    program: Option<AttributeWrite>,
    keys: Option<AttributeWrite>,
}

impl Labels {
    /// Opens the files for the labels of a process, or else those of the container that it joins. Does nothing without
    /// labels.
    pub(crate) fn open(process: &Process, container: &Spec, keys: bool) -> Result<Self, Failure> {
        let own = container.process().as_ref().map(RequestedLabels::of);
        let requested = RequestedLabels::of(process).or(own.unwrap_or_default());
        let profile = profile(requested.profile, has_apparmor).step(APPARMOR)?;
        let label = label("process.selinuxLabel", requested.label, has_selinux).step(SELINUX)?;
        if profile.is_none() && label.is_none() {
            return Ok(Self::default());
        }
        let proc = Proc::open().step("/proc")?;
        let opened = |paths: &[&str], text: Option<&String>| {
            text.map(|text| AttributeWrite::open(&proc, paths, text))
                .transpose()
        };
        Ok(Self {
            profile: opened(&APPARMOR_EXEC, profile.as_ref()).step(APPARMOR)?,
            program: opened(&EXEC, label.as_ref()).step(SELINUX)?,
            keys: opened(&KEYCREATE, label.as_ref().filter(|_| keys)).step(SELINUX)?,
        })
    }

    /// Creates a keyring with the process's label.
    pub(crate) fn create_keyring(
        &self,
        make: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(keys) = &self.keys else {
            return make();
        };
        keys.write().step(SELINUX)?;
        make()?;
        // Keys that the program creates are its own.
        keys.reset().step(SELINUX)
    }

    /// Applies the labels to the next `execve`. Called while this process has all capabilities: AppArmor may otherwise
    /// stack the profile onto that of a confined caller.
    pub(crate) fn apply_to_exec(&self) -> Result<(), Failure> {
        if let Some(profile) = &self.profile {
            profile.write().step(APPARMOR)?;
        }
        if let Some(program) = &self.program {
            program.write().step(SELINUX)?;
        }
        Ok(())
    }
}

/// An attribute file and its value.
#[derive(Debug)]
struct AttributeWrite {
    file: OwnedFd,
    text: String,
}

impl AttributeWrite {
    /// Opens the first of these paths that exists.
    fn open(proc: &Proc, paths: &[&str], text: &str) -> io::Result<Self> {
        let mut opened = Err(Errno::NOENT.into());
        for path in paths {
            opened = proc.open_to_write(Path::new(path));
            if !matches!(&opened, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
        }
        let text = text.to_owned();
        opened.map(|file| Self { file, text })
    }

    /// Writes the value at once: the kernel treats each write as a value of its own.
    fn write(&self) -> Result<(), String> {
        match rustix::io::write(&self.file, self.text.as_bytes()) {
            Ok(written) if written == self.text.len() => Ok(()),
            Ok(_) => Err(self.explain(&io::ErrorKind::InvalidInput.into())),
            Err(errno) => Err(self.explain(&errno.into())),
        }
    }

    /// Explains an error of the kernel.
    fn explain(&self, error: &io::Error) -> String {
        let name = self.text.trim_start_matches("exec ");
        match error.raw_os_error() {
            Some(libc::ENOENT) => format!(
                "process.apparmorProfile {name:?} is not loaded: load it by apparmor_parser(8), or name one that is"
            ),
            Some(libc::EINVAL) => format!("{name:?} is unknown to the policy of this host"),
            _ => format!("{name:?}: {error}"),
        }
    }

    fn reset(&self) -> io::Result<()> {
        Ok(rustix::io::write(&self.file, b"\n").map(drop)?)
    }
}

#[cfg(test)]
mod tests;
