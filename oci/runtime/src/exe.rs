//! Protects this program's file from containers, which could write to it through `/proc/<pid>/exe` (CVE-2019-5736:
//! make the runtime execute itself inside, and overwrite the file when nobody executes it any more).
//!
//! The program runs from a read-only clone of its mount that is part of no namespace. Containers cannot reach the
//! mount to make it writable, and no copy of the file has to be kept in memory.

mod mapped;

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{CWD, StatVfsMountFlags, statvfs},
    mount::OpenTreeFlags,
};

use self::mapped::ExeChange;
pub(crate) use self::mapped::file_regions;
use crate::sys::{self, MountAttributes};

/// Process name; execution by descriptor would show the descriptor's number.
const NAME: &std::ffi::CStr = c"tucano_oci";

/// Why the program cannot run from a read-only mount.
#[derive(Debug, thiserror::Error)]
#[error("cannot protect this program from its containers (Linux 5.12 and root are needed): {0}")]
pub(crate) struct Error(#[from] io::Error);

const PROGRAM: &str = "/proc/self/exe";

/// Makes relocated data read-only (RELRO). The GNU C library does so itself, a static musl start does not.
pub(crate) fn seal() {
    // Failure leaves an unsealed program, which is the common case elsewhere.
    mapped::seal().ok();
}

/// Makes this process run its program from a read-only mount, unless it already does.
pub(crate) fn protect() -> Result<(), Error> {
    static PROTECTED: AtomicBool = AtomicBool::new(false);
    if !PROTECTED.load(Ordering::Relaxed) {
        switch_to_read_only()?;
        PROTECTED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn switch_to_read_only() -> Result<(), Error> {
    if let Some(shield) = ReadOnlyProgram::for_children()? {
        shield.switch()?;
    }
    Ok(())
}

/// A read-only mount of this program for child processes, which switch to it before a container can see them. The
/// starter itself is invisible to containers and need not switch.
pub(crate) struct ReadOnlyProgram {
    program: File,
    change: ExeChange,
    /// Unmounting takes a while and happens after the container has started.
    _mount: OwnedFd,
}

impl ReadOnlyProgram {
    /// Prepares the mount. None if this process already runs from a read-only mount, or if the kernel does not let
    /// children switch; then this process re-executes itself from the mount.
    pub(crate) fn for_children() -> Result<Option<Self>, Error> {
        if is_protected()? {
            // The process name is cosmetic.
            rustix::thread::set_name(NAME).ok();
            return Ok(None);
        }
        let mount = read_only(Path::new(PROGRAM))?;
        // An O_PATH descriptor can be neither mapped nor executed.
        let program = File::open(format!("/proc/self/fd/{}", mount.as_raw_fd()))?;
        match ExeChange::find(&program) {
            // Re-executing would take a tenth of the start of a container.
            Some(change) => Ok(Some(Self {
                program,
                change,
                _mount: mount,
            })),
            None => execute(&mount).map(|()| None),
        }
    }

    /// Switches this process to the mount.
    pub(crate) fn switch(&self) -> Result<(), Error> {
        Ok(mapped::run_from(&self.program, &self.change)?)
    }
}

fn is_protected() -> io::Result<bool> {
    let flags = statvfs(PROGRAM)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

fn execute(program: &OwnedFd) -> Result<(), Error> {
    let text = |text: &std::ffi::OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let arguments: Vec<_> = std::env::args_os()
        .map(|argument| text(&argument))
        .collect::<Result<_, _>>()?;
    let environment: Vec<_> = std::env::vars_os()
        .map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            text(&entry)
        })
        .collect::<Result<_, _>>()?;
    match nix::unistd::fexecve(program, &arguments, &environment) {
        Ok(never) => match never {},
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// A detached, read-only clone of the program's mount.
fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, program, copy)?;
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Default::default()
    };
    sys::set_mount_attributes(&mount, &change)?;
    Ok(mount)
}

/// A script's interpreter could not open it by a descriptor that it does not have.
fn is_script(path: &Path) -> bool {
    let mut beginning = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut beginning));
    read.is_ok() && beginning == *b"#!"
}

/// A program that is started repeatedly, from a read-only mount to begin with so that it need not re-execute itself.
pub(crate) struct SharedProgram {
    mount: Option<Arc<Mounted>>,
    path: PathBuf,
}

struct Mounted {
    file: FileId,
    mount: OwnedFd,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// Of the file that the path refers to now.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self(found.dev(), found.ino()))
    }
}

impl SharedProgram {
    /// Prepares the program at this path. If that fails, the program itself reports why when it runs.
    pub(crate) fn of(path: &Path) -> Self {
        static KNOWN: Mutex<BTreeMap<PathBuf, Arc<Mounted>>> = Mutex::new(BTreeMap::new());
        let mount = FileId::of(path).and_then(|file| {
            let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mounted) = known.get(path).filter(|it| it.file == file) {
                return Some(Arc::clone(mounted));
            }
            let mount = read_only(path).ok().filter(|_| !is_script(path))?;
            let mounted = Arc::new(Mounted { file, mount });
            known.insert(path.to_owned(), Arc::clone(&mounted));
            Some(mounted)
        });
        Self {
            mount,
            path: path.to_owned(),
        }
    }

    /// A command for the program. Must be spawned while `self` lives, which holds the descriptor.
    pub(crate) fn command(&self) -> Command {
        let Some(mounted) = &self.mount else {
            return Command::new(&self.path);
        };
        let mut command = Command::new(format!("/proc/self/fd/{}", mounted.mount.as_raw_fd()));
        command.arg0(&self.path);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_program_file_is_noticed() {
        if !tucano_testkit::needs(&[tucano_testkit::ROOT]) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let says = || {
            let prepared = SharedProgram::of(&path);
            assert!(prepared.mount.is_some());
            let output = prepared.command().arg("x").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        fs::copy("/bin/echo", &path).unwrap();
        assert_eq!(says(), "x\n");
        assert_eq!(says(), "x\n");
        fs::copy("/bin/basename", directory.path().join("next")).unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
        let prepared = SharedProgram::of(&path);
        let output = prepared.command().arg("/a/b").output().unwrap();
        assert_eq!(output.stdout, b"b\n");
    }
}
