//! The file system of a volume: ext4 in a file of the volume's size, which the kernel mounts by a loop device.
//!
//! The file is allocated at once where the file system below can: a volume never loses writes because others fill the disk. The
//! device is one that the kernel detaches when nothing is mounted from it any more, so none is ever left behind, whatever is killed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::{
    fs::{AtFlags, CWD, FallocateFlags, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::UnmountFlags,
};
use tucano_api::units::Bytes;

use super::{
    device::{Device, attribute},
    error::{Attempt, Error},
    programs::{ImageLock, PROGRAMS, open, output, run, text},
};

/// Nothing is left for the kernel to initialise later: the loop driver turns zeroing into holes of the file.
const EXTENDED_OPTIONS: &str = "nodiscard,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0";
/// Neither discards nor background initialisation, both of which make holes in the file.
const MOUNT_OPTIONS: &str = "loop,nosuid,nodev,nodiscard,noinit_itable";
/// `e2fsck -p`: nothing was wrong, or it is corrected.
const CHECKED: [i32; 2] = [0, 1];
/// Device that creates loop devices.
const LOOP_CONTROL: &str = "/dev/loop-control";

/// Why this node cannot have volumes; none if it can.
pub(super) fn obstacle() -> Option<String> {
    if !Path::new(LOOP_CONTROL).exists() {
        return Some(format!("the kernel has no loop devices ({LOOP_CONTROL})"));
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| {
        std::env::split_paths(&directories).any(|directory| directory.join(program).is_file())
    };
    let missing = PROGRAMS.iter().find(|(program, _)| !has(program));
    missing.map(|&(program, package)| Error::NoProgram { program, package }.to_string())
}

/// Creates the file of a new volume.
pub(super) fn create_file(image: &Path, size: Bytes) -> Result<(), Error> {
    let file = File::create_new(image).attempt("create", image)?;
    allocate(&file, size).attempt("allocate", image)
}

/// Creates an empty file system in the file of a new volume.
pub(super) fn format(image: &Path) -> Result<(), Error> {
    let lock = ImageLock::take(image)?;
    let mut mkfs = Command::new("mkfs.ext4");
    // Without blocks that only root can use: a container's root cannot.
    mkfs.args(["-q", "-F", "-m", "0", "-b", "4096", "-i", "8192"])
        .args(["-e", "remount-ro", "-E", EXTENDED_OPTIONS])
        .arg(image);
    lock.run(&mut mkfs)?;
    refill(image)?;
    sync(image)
}

/// Allocates the holes of a volume's file, also while it is mounted. Its content stays.
///
/// # Errors
/// There is no room for all of them: the volume may lose writes when the disk stays full.
pub(super) fn refill(image: &Path) -> Result<(), Error> {
    let file = open(image)?;
    let size = file.metadata().attempt("examine", image)?.len();
    fill_holes(&file, Bytes(size)).attempt("allocate all of", image)
}

/// Makes what is written to a volume's file durable.
pub(super) fn sync(image: &Path) -> Result<(), Error> {
    open(image)?.sync_all().attempt("sync", image)
}

/// Whether a file has fewer blocks than its size needs.
pub(super) fn has_holes(image: &Path) -> bool {
    fs::metadata(image).is_ok_and(|found| found.blocks().saturating_mul(512) < found.len())
}

/// Makes the file of a volume larger; its file system follows by [`extend`].
pub(super) fn enlarge(image: &Path, size: Bytes) -> Result<(), Error> {
    let _lock = ImageLock::take(image)?;
    let file = open(image)?;
    allocate(&file, size)
        .and_then(|()| file.sync_all())
        .attempt("enlarge", image)
}

/// Gives a file system that nobody uses all of its file. Unlike [`extend_mounted`] this needs no capability.
pub(super) fn extend_unused(image: &Path) -> Result<(), Error> {
    let lock = ImageLock::take(image)?;
    // resize2fs wants it checked in full.
    let output = lock.output(Command::new("e2fsck").args(["-f", "-p"]).arg(image))?;
    if !is_sound(&output) {
        let (program, detail) = ("e2fsck", text(&output));
        return Err(Error::Program { program, detail });
    }
    lock.run(Command::new("resize2fs").arg(image))?;
    refill(image)
}

/// Gives a mounted file system all of its file, while it is in use.
pub(super) fn extend_mounted(image: &Path, mount_point: &Path) -> Result<(), Error> {
    let lock = ImageLock::take(image)?;
    let device = Device::mounted_on(mount_point).attempt("examine", mount_point)?;
    let name = device.name().attempt("read", &device.link())?;
    let device = device_file(&name);
    run(Command::new("losetup").arg("--set-capacity").arg(&device))?;
    let resized = lock.run(Command::new("resize2fs").arg(&device));
    resized.map_err(|error| match can_extend_mounted() {
        true => error,
        false => Error::CannotGrowInUse,
    })
}

/// Mounts a file system, after a check that repairs what can be repaired without loss.
pub(super) fn mount(image: &Path, mount_point: &Path) -> Result<(), Error> {
    ImageLock::take(image)?.run(
        Command::new("mount")
            .args(["-t", "ext4", "-o", MOUNT_OPTIONS])
            .arg(image)
            .arg(mount_point),
    )?;
    if let Ok(device) = Device::mounted_on(mount_point).and_then(|device| device.name()) {
        tune(&device);
    }
    Ok(())
}

/// Sets what is no mount option, where that is possible.
fn tune(device: &OsStr) {
    // Without the page cache of the file below, which would hold everything twice. Some file systems cannot.
    if let Err(error) = run(Command::new("losetup")
        .arg("--direct-io=on")
        .arg(device_file(device)))
    {
        tracing::debug!(%error, "the volume's loop device goes through the page cache");
    }
    // By default ext4 zeroes blocks around a write to a preallocated extent. On a loop device that punches holes.
    let attribute = attribute(device, "extent_max_zeroout_kb");
    if let Err(error) = fs::write(&attribute, "0") {
        tracing::debug!(%error, "a volume's file may get holes, which are filled again");
    }
}

/// Whether this process has CAP_SYS_RESOURCE. Resizing a mounted ext4 requires it.
pub(super) fn can_extend_mounted() -> bool {
    let all = rustix::thread::capabilities(None);
    all.is_ok_and(|all| {
        all.effective
            .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
    })
}

/// Repairs what can be repaired without loss; the output of the check where that is not all. A file system that is mounted somewhere,
/// such as in a container that this agent does not know, is left alone: mount(8) uses its device again.
pub(super) fn check_unused(image: &Path) -> Result<Result<(), String>, Error> {
    let lock = ImageLock::take(image)?;
    if has_device(image)? {
        return Ok(Ok(()));
    }
    let output = lock.output(Command::new("e2fsck").arg("-p").arg(image))?;
    let sound = is_sound(&output);
    Ok(if sound { Ok(()) } else { Err(text(&output)) })
}

/// Whether a file has a loop device, and so may be mounted somewhere.
pub(super) fn has_device(image: &Path) -> Result<bool, Error> {
    let devices = output(Command::new("losetup").arg("--associated").arg(image))?;
    Ok(!devices.stdout.is_empty())
}

fn is_sound(output: &Output) -> bool {
    let code = output.status.code();
    code.is_some_and(|code| CHECKED.contains(&code))
}

/// Whether something is mounted on a directory.
pub(super) fn is_mounted(directory: &Path) -> io::Result<bool> {
    let found = match statx(CWD, directory, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Err(Errno::NOENT) => return Ok(false),
        found => found?,
    };
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts a directory if something is mounted on it and nobody uses it.
pub(super) fn unmount(directory: &Path) -> Result<(), Error> {
    while is_mounted(directory).attempt("examine", directory)? {
        rustix::mount::unmount(directory, UnmountFlags::NOFOLLOW).attempt("unmount", directory)?;
    }
    Ok(())
}

/// Unmounts a directory although something on it may be open.
pub(super) fn detach(directory: &Path) -> Result<(), Error> {
    while is_mounted(directory).attempt("examine", directory)? {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        rustix::mount::unmount(directory, flags).attempt("unmount", directory)?;
    }
    Ok(())
}

/// What is written to a mounted file system.
pub(super) fn used(mount_point: &Path) -> io::Result<Bytes> {
    let found = rustix::fs::statvfs(mount_point)?;
    let blocks = found.f_blocks.saturating_sub(found.f_bfree);
    Ok(Bytes(blocks.saturating_mul(found.f_frsize)))
}

/// Allocates a file's bytes; where the file system below cannot, the file has holes.
fn allocate(file: &File, size: Bytes) -> io::Result<()> {
    let present = file.metadata()?.len();
    if present >= size.0 {
        return Ok(());
    }
    let length = size.0 - present;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), present, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size.0),
        Err(errno) => {
            // Part of it may have been allocated.
            file.set_len(present)?;
            Err(errno.into())
        }
        Ok(()) => Ok(()),
    }
}

/// Allocates what the programs have made holes of: they write zeros so where the file system below has no better way.
fn fill_holes(file: &File, size: Bytes) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size.0) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        filled => Ok(filled?),
    }
}

fn device_file(name: &OsStr) -> PathBuf {
    Path::new("/dev").join(name)
}
