//! Keeps containers from writing to this program's file through `/proc/<pid>/exe` (the trick of CVE-2019-5736: have the
//! runtime execute itself inside, and overwrite it when it has ended).
//!
//! The program runs from a read-only copy of its mount that is part of no namespace: no container can reach the mount to
//! make it writable, and no copy of the file has to be kept in memory.

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

use self::mapped::Way;
pub(crate) use self::mapped::as_in_file;
use crate::sys::{self, MountAttributes};

/// What the program is called in lists of processes; by a descriptor, it would be by that one's number.
const NAME: &std::ffi::CStr = c"tucano_oci";

/// Why the program cannot be executed from a read-only mount.
#[derive(Debug, thiserror::Error)]
#[error("cannot protect this program from its containers (Linux 5.12 and root are needed): {0}")]
pub(crate) struct Error(#[from] io::Error);

const PROGRAM: &str = "/proc/self/exe";

/// Has what is only read once the program is loaded be read-only. The GNU C library does so itself, musl's static start does not.
pub(crate) fn seal() {
    // One that is not is as most programs are.
    mapped::seal().ok();
}

/// Has this process run its program from a read-only mount, unless that is what it does.
pub(crate) fn protect() -> Result<(), Error> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.load(Ordering::Relaxed) {
        make_protected()?;
        DONE.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn make_protected() -> Result<(), Error> {
    if let Some(shield) = Shield::for_children()? {
        shield.raise()?;
    }
    Ok(())
}

/// What a new process needs to run its program from a read-only mount before a container can see it. Its starter, which no container
/// sees, need not.
pub(crate) struct Shield {
    program: File,
    way: Way,
    /// Giving it up takes the kernel time, which nobody has to wait for when the container runs.
    _mount: OwnedFd,
}

impl Shield {
    /// For processes that this one makes. None where it runs from such a mount itself; where they could not by themselves, it does
    /// after this.
    pub(crate) fn for_children() -> Result<Option<Self>, Error> {
        if is_protected()? {
            // That it has another name then is no failure.
            rustix::thread::set_name(NAME).ok();
            return Ok(None);
        }
        let mount = read_only(Path::new(PROGRAM))?;
        // A descriptor of a mount alone can be neither mapped nor executed from.
        let program = File::open(format!("/proc/self/fd/{}", mount.as_raw_fd()))?;
        match Way::find(&program) {
            // To execute it again would take a tenth of a container's start.
            Some(way) => Ok(Some(Self {
                program,
                way,
                _mount: mount,
            })),
            None => execute(&mount).map(|()| None),
        }
    }

    /// Has this process run its program from the mount.
    pub(crate) fn raise(&self) -> Result<(), Error> {
        Ok(mapped::run_from(&self.program, &self.way)?)
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

/// A copy of the mount of this program that is part of no namespace, and read-only.
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

/// Its interpreter would look for it by a descriptor that it does not have.
fn is_script(path: &Path) -> bool {
    let mut beginning = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut beginning));
    read.is_ok() && beginning == *b"#!"
}

/// A program for others to run again and again: from such a mount to begin with, so that it need not execute itself once more.
pub(crate) struct Prepared {
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
    /// Of the file that is at this path now.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self(found.dev(), found.ino()))
    }
}

impl Prepared {
    /// Of the program that is at this path now. Where there can be no such mount, the program tells why.
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

    /// To be run while this value lives: the descriptor is not the program's own.
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
    fn a_program_that_takes_anothers_place_is_the_one_that_is_run() {
        if !tucano_testkit::needs(&[tucano_testkit::ROOT]) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let says = || {
            let prepared = Prepared::of(&path);
            assert!(prepared.mount.is_some());
            let output = prepared.command().arg("x").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        fs::copy("/bin/echo", &path).unwrap();
        assert_eq!(says(), "x\n");
        assert_eq!(says(), "x\n");
        fs::copy("/bin/basename", directory.path().join("next")).unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
        let prepared = Prepared::of(&path);
        let output = prepared.command().arg("/a/b").output().unwrap();
        assert_eq!(output.stdout, b"b\n");
    }
}
