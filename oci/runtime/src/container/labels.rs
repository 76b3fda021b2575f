//! What a Linux security module knows a container by: AppArmor the profile of its process, SELinux the label of that and of its
//! mounts. See `docs/decisions/0076-profiles-and-labels.md`.

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

/// Says whether AppArmor is active.
const APPARMOR_STATE: &str = "/sys/module/apparmor/parameters/enabled";

/// Where SELinux is told of, if it is active.
const SELINUX_FS: &str = "/sys/fs/selinux";

/// What that is known by (`SELINUX_MAGIC` of linux/magic.h).
const SELINUX_MAGIC: FsWord = 0xf97c_ff8c;

/// What AppArmor calls a process without a profile.
const UNCONFINED: &str = "unconfined";

/// What the kernel knows of a thread for security modules; those of AppArmor itself are newer than those of any module.
const OF_APPARMOR: [&str; 2] = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];
const OF_PROGRAM: [&str; 1] = ["thread-self/attr/exec"];
const OF_KEYS: [&str; 1] = ["thread-self/attr/keycreate"];

/// File systems whose files the policy labels.
const LABELLED_BY_POLICY: [&str; 2] = ["proc", "sysfs"];

/// One of which there is one for each namespace, before anyone mounts it: nobody can say then how it is labelled.
const MADE_BEFORE: &str = "mqueue";

/// What a mount's own options may say of labels.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Whether this host can give a process what it asks for.
pub(crate) fn check_process(process: &Process) -> Result<(), String> {
    let wanted = Wanted::by(process);
    profile(wanted.profile, has_apparmor)?;
    label("process.selinuxLabel", wanted.label, has_selinux).map(drop)
}

/// Whether this host can give a container's mounts their label.
pub(crate) fn check_mounts(spec: &Spec) -> Result<(), String> {
    label("linux.mountLabel", of_mounts(spec), has_selinux).map(drop)
}

/// The label of a container's mounts; empty where there is none.
pub(crate) fn of_mounts(spec: &Spec) -> &str {
    let linux = spec.linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_deref());
    label.unwrap_or_default()
}

/// The option that gives a file system this label, if it takes one and none is among its options.
pub(crate) fn option<'a>(
    label: &'a str,
    kind: &str,
    given: impl IntoIterator<Item = &'a str>,
) -> Option<(&'static str, Option<&'a str>)> {
    let is_told = given.into_iter().any(|name| CONTEXTS.contains(&name));
    let takes = kind != MADE_BEFORE && !LABELLED_BY_POLICY.contains(&kind);
    (takes && !label.is_empty() && !is_told).then_some(("context", Some(label)))
}

/// Labels the root of a file system that takes no option for it. A policy that labels it otherwise has the last word.
pub(crate) fn mark(tree: &OwnedFd, label: &str, kind: &str) -> io::Result<()> {
    if label.is_empty() || kind != MADE_BEFORE {
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

/// What a process asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted<'a> {
    profile: &'a str,
    label: &'a str,
}

impl<'a> Wanted<'a> {
    fn by(process: &'a Process) -> Self {
        Self {
            profile: process.apparmor_profile().as_deref().unwrap_or_default(),
            label: process.selinux_label().as_deref().unwrap_or_default(),
        }
    }

    /// What it does not ask for, as another does.
    fn or(self, other: Self) -> Self {
        let either = |own: &'a str, other| if own.is_empty() { other } else { own };
        Self {
            profile: either(self.profile, other.profile),
            label: either(self.label, other.label),
        }
    }
}

/// What AppArmor is told for a profile. Pure: `is_active` tells of the host, and is only asked where that matters.
fn profile(name: &str, is_active: impl FnOnce() -> bool) -> Result<Option<String>, String> {
    match name {
        "" => Ok(None),
        _ if name.contains('\0') => Err(format!("process.apparmorProfile {name:?} is no name")),
        _ if is_active() => Ok(Some(format!("exec {name}"))),
        // So is every process where there is no AppArmor.
        UNCONFINED => Ok(None),
        _ => Err(format!(
            "process.apparmorProfile is {name:?}, but AppArmor is not active on this host: leave it out, or boot with apparmor=1"
        )),
    }
}

/// What SELinux is told for a label. Pure, as [`profile`] is.
fn label(
    field: &str,
    label: &str,
    is_active: impl FnOnce() -> bool,
) -> Result<Option<String>, String> {
    match label {
        "" => Ok(None),
        _ if label.contains('\0') => Err(format!("{field} {label:?} is no label")),
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

/// What is said of this thread, once it is time. Opened while `/proc` is the host's: what the container shows there could be
/// anything, and what is written to it could end up anywhere (CVE-2025-52881).
#[derive(Debug, Default)]
pub(crate) struct Labels {
    profile: Option<Said>,
    program: Option<Said>,
    keys: Option<Said>,
}

impl Labels {
    /// Those that a process asks for, or else the container that it joins. Does nothing where none is asked for.
    pub(crate) fn open(process: &Process, container: &Spec, keys: bool) -> Result<Self, Failure> {
        let own = container.process().as_ref().map(Wanted::by);
        let wanted = Wanted::by(process).or(own.unwrap_or_default());
        let profile = profile(wanted.profile, has_apparmor).step(APPARMOR)?;
        let label = label("process.selinuxLabel", wanted.label, has_selinux).step(SELINUX)?;
        if profile.is_none() && label.is_none() {
            return Ok(Self::default());
        }
        let proc = Proc::open().step("/proc")?;
        let opened = |paths: &[&str], text: Option<&String>| {
            text.map(|text| Said::open(&proc, paths, text)).transpose()
        };
        Ok(Self {
            profile: opened(&OF_APPARMOR, profile.as_ref()).step(APPARMOR)?,
            program: opened(&OF_PROGRAM, label.as_ref()).step(SELINUX)?,
            keys: opened(&OF_KEYS, label.as_ref().filter(|_| keys)).step(SELINUX)?,
        })
    }

    /// Makes a key ring, which gets the label too.
    pub(crate) fn of_keys(
        &self,
        make: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(keys) = &self.keys else {
            return make();
        };
        keys.say().step(SELINUX)?;
        make()?;
        // What the program makes is its own.
        keys.take_back().step(SELINUX)
    }

    /// Has the next program be under them. While this process has all that it may do: without it, AppArmor may add to the
    /// profile what confines those who have not.
    pub(crate) fn of_program(&self) -> Result<(), Failure> {
        if let Some(profile) = &self.profile {
            profile.say().step(APPARMOR)?;
        }
        if let Some(program) = &self.program {
            program.say().step(SELINUX)?;
        }
        Ok(())
    }
}

/// A file of the kernel's, and what is written to it.
#[derive(Debug)]
struct Said {
    file: OwnedFd,
    text: String,
}

impl Said {
    /// The first of these paths that is there.
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

    /// At once: the kernel takes what comes in a second write for another word.
    fn say(&self) -> Result<(), String> {
        match rustix::io::write(&self.file, self.text.as_bytes()) {
            Ok(written) if written == self.text.len() => Ok(()),
            Ok(_) => Err(self.why(&io::ErrorKind::InvalidInput.into())),
            Err(errno) => Err(self.why(&errno.into())),
        }
    }

    /// The kernel's word of an error, and what it means here.
    fn why(&self, error: &io::Error) -> String {
        let name = self.text.trim_start_matches("exec ");
        match error.raw_os_error() {
            Some(libc::ENOENT) => format!(
                "process.apparmorProfile {name:?} is not loaded: load it by apparmor_parser(8), or name one that is"
            ),
            Some(libc::EINVAL) => format!("{name:?} means nothing to the policy of this host"),
            _ => format!("{name:?}: {error}"),
        }
    }

    fn take_back(&self) -> io::Result<()> {
        Ok(rustix::io::write(&self.file, b"\n").map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: fn() -> bool = || unreachable!("nothing depends on the host");

    #[test]
    fn what_is_not_asked_for_costs_no_look_at_the_host() {
        assert_eq!(profile("", NEVER), Ok(None));
        assert_eq!(label("x", "", NEVER), Ok(None));
    }

    #[test]
    fn a_profile_is_applied_or_refused_by_its_name() {
        let applied = |name: &str, active| profile(name, move || active);
        let exec = |name: &str| Ok(Some(format!("exec {name}")));
        assert_eq!(applied("docker-default", true), exec("docker-default"));
        // Whoever starts it may be confined.
        assert_eq!(applied(UNCONFINED, true), exec(UNCONFINED));
        assert_eq!(applied(UNCONFINED, false), Ok(None));
        let refused = applied("docker-default", false).unwrap_err();
        assert!(refused.contains("apparmorProfile") && refused.contains("docker-default"));
        assert!(applied("a\0b", true).is_err(), "the kernel would read `a`");
    }

    #[test]
    fn a_label_is_applied_or_refused_by_its_name() {
        let text = "system_u:system_r:container_t:s0:c1,c2";
        let applied = |text: &str, active| label("linux.mountLabel", text, move || active);
        assert_eq!(applied(text, true), Ok(Some(text.to_owned())));
        let refused = applied(text, false).unwrap_err();
        assert!(refused.contains("linux.mountLabel") && refused.contains(text));
        assert!(applied("a\0b", true).is_err());
    }

    #[test]
    fn a_process_without_its_own_has_the_containers() {
        let own = Wanted {
            profile: "a",
            label: "",
        };
        let container = Wanted {
            profile: "b",
            label: "l",
        };
        let both = own.or(container);
        assert_eq!((both.profile, both.label), ("a", "l"));
    }

    #[test]
    fn file_systems_with_labels_of_their_own_are_given_none() {
        let none: [&str; 0] = [];
        assert_eq!(option("l", "tmpfs", none), Some(("context", Some("l"))));
        assert_eq!(option("", "tmpfs", none), None);
        assert_eq!(option("l", "proc", none), None);
        assert_eq!(option("l", "mqueue", none), None);
        assert_eq!(option("l", "tmpfs", ["size", "rootcontext"]), None);
    }
}
