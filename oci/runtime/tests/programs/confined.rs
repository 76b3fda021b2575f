//! Tries operations in a confined process and prints the result of each.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, ExitCode},
    thread,
};

use nix::{mount::MsFlags, sched::CloneFlags};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags, chownat, makedev, mkdirat, mknodat,
    unlinkat,
};
use tucano_oci_runtime::confinement::enter_directory;

const MEMORY_BYTES: u64 = 1 << 30;

/// `<confined|free> <a directory> <a file elsewhere> <a program in the directory>`
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [manner, directory, elsewhere, program] = &arguments[..] else {
        return ExitCode::FAILURE;
    };
    if manner == "confined" {
        if let Err(error) = enter_directory(Path::new(directory), MEMORY_BYTES) {
            println!("confine: {error}");
            return ExitCode::FAILURE;
        }
    } else if free_within(directory).is_err() {
        return ExitCode::FAILURE;
    }
    what_is_needed();
    what_is_not(elsewhere, program);
    ExitCode::SUCCESS
}

/// Mounts are private to this process.
fn free_within(directory: &str) -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(nothing, "/", nothing, private, nothing)?;
    env::set_current_dir(directory)
}

/// Uses calls relative to an open directory: only those are allowed.
fn what_is_needed() {
    let (uid, gid) = (Uid::from_raw(7), Gid::from_raw(8));
    let mark = |directory: File| {
        let name = "trusted.overlay.opaque";
        rustix::fs::fsetxattr(directory, name, b"y", XattrFlags::empty()).map_err(Into::into)
    };
    tell("write", fs::write("file", "text"));
    tell("read", fs::read("file"));
    tell("directory", mkdirat(CWD, "made", Mode::RWXU));
    tell("list", fs::read_dir("."));
    tell(
        "owner",
        chownat(CWD, "file", Some(uid), Some(gid), AtFlags::empty()),
    );
    tell("device", make_device());
    tell("mark", File::open("made").and_then(mark));
    tell(
        "thread",
        thread::Builder::new().spawn(|| ()).map(|it| it.join()),
    );
    tell("remove", unlinkat(CWD, "made", AtFlags::REMOVEDIR));
}

fn what_is_not(elsewhere: &str, program: &str) {
    let parent = nix::unistd::getppid();
    let nothing = None::<&str>;
    tell("elsewhere", fs::read(elsewhere));
    tell(
        "above",
        fs::read_dir("..").and_then(|mut all| {
            all.any(|entry| entry.is_ok_and(|entry| entry.file_name() == "elsewhere"))
                .then_some(())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
    );
    tell("host", fs::read_dir("/etc"));
    tell("processes", fs::read_dir("/proc/self"));
    tell("open-device", fs::read("device"));
    tell("execute", Command::new(program).arg("free").output());
    tell("socket", UnixDatagram::unbound());
    tell(
        "signal",
        nix::sys::signal::kill(parent, None).map_err(io::Error::from),
    );
    tell(
        "mount",
        nix::mount::mount(Some("tmpfs"), ".", Some("tmpfs"), MsFlags::empty(), nothing)
            .map_err(io::Error::from),
    );
    tell(
        "namespace",
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from),
    );
    tell("memory", room_for(4 * MEMORY_BYTES));
    tell(
        "become",
        nix::unistd::setuid(0.into()).map_err(io::Error::from),
    );
    tell("root", nix::unistd::chroot("."));
}

/// The node's null device: harmless where it can be opened.
fn make_device() -> rustix::io::Result<()> {
    let kind = FileType::CharacterDevice;
    mknodat(CWD, "device", kind, Mode::RUSR, makedev(1, 3))
}

fn room_for(bytes: u64) -> io::Result<()> {
    let mut room: Vec<u8> = Vec::new();
    let reserved = room.try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX));
    reserved.map_err(|_| io::ErrorKind::OutOfMemory.into())
}

fn tell<T, E>(what: &str, outcome: Result<T, E>) {
    println!(
        "{what}: {}",
        if outcome.is_ok() { "done" } else { "denied" }
    );
}
