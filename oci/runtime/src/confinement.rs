//! Confines a program that reads what nobody trusts and writes what it makes of it below one directory: that directory is
//! all it has left of the file system, and few system calls and capabilities are left to work on it with.
//!
//! What is open stays open: its standard descriptors are how it hears and tells.

use std::{os::fd::AsFd, path::Path};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxSeccomp;
use rustix::{
    mount::MountPropagationFlags,
    process::{Resource, Rlimit, Signal, setrlimit},
};
use serde_json::json;

use crate::{
    channel::{Failure, Step},
    container::{
        inside::Root,
        landlock,
        mounts::attach,
        rootfs::{clone_tree, enter},
        seccomp::Filters,
    },
    sys::{self, MountAttributes},
};

/// What it takes to make any file with any owner, mode and attribute.
const CAPABILITIES: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
    // Nothing else may mark a directory as opaque for overlayfs (`trusted.*`). What more it would allow, the filter does not.
    Capability::CAP_SYS_ADMIN,
];

/// Most descriptors: a tree is removed with one open on each of its levels.
const OPEN_FILES: u64 = 1024;

/// System calls without conditions.
const CALLS: &[&str] = &[
    // Reading and writing.
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "lseek",
    "close",
    "fcntl",
    "fsync",
    "fdatasync",
    // Files and directories.
    "openat",
    "openat2",
    "fstat",
    "newfstatat",
    "statx",
    "getdents64",
    "mkdirat",
    "mknodat",
    "unlinkat",
    "linkat",
    "symlinkat",
    "readlinkat",
    "ftruncate",
    "fallocate",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "fgetxattr",
    "umask",
    // Memory.
    "brk",
    "munmap",
    "mremap",
    "madvise",
    // Threads.
    "futex",
    "set_robust_list",
    "rseq",
    "sched_getaffinity",
    "sched_yield",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "restart_syscall",
    "membarrier",
    "exit",
    "exit_group",
    // Who and when.
    "getpid",
    "gettid",
    "geteuid",
    "getegid",
    "getuid",
    "getgid",
    "getrandom",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "poll",
    "ppoll",
];

/// Confines this program, which must not have started a thread yet, to `directory`, which becomes its root and its working
/// directory; `memory_bytes` bounds its address space. It is killed when the thread that started it ends. What is told is
/// what the kernel does not have.
///
/// # Errors
/// What could not be done: then the program must end, for it is confined by half.
pub fn enter_directory(directory: &Path, memory_bytes: u64) -> Result<Vec<String>, String> {
    let confine = || -> Result<Vec<String>, Failure> {
        let filters = Filters::compile(&calls().step("seccomp")?).step("seccomp")?;
        sys::close_from(3).step("descriptors")?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("parent")?;
        limit_resources(memory_bytes)?;
        leave_host(directory)?;
        drop_capabilities().step("capabilities")?;
        rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
        let notes = match landlock::confine_to_root().step("landlock")? {
            true => Vec::new(),
            false => vec!["the kernel has no Landlock".to_owned()],
        };
        filters.install().step("seccomp")?;
        Ok(notes)
    };
    confine().map_err(|failure| failure.to_string())
}

fn limit_resources(memory_bytes: u64) -> Result<(), Failure> {
    let limits = [
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::As, memory_bytes),
    ];
    limits
        .into_iter()
        .try_for_each(|(resource, limit)| {
            let limit = Some(limit);
            setrlimit(
                resource,
                Rlimit {
                    current: limit,
                    maximum: limit,
                },
            )
        })
        .step("limits")
}

/// Into namespaces of its own, of which the directory is the root. No device of the node can be opened there, whoever made
/// it, and nothing executed.
fn leave_host(directory: &Path) -> Result<(), Failure> {
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    nix::sched::unshare(own).step("namespaces")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step("namespaces")?;
    let tree = clone_tree(directory, false)?;
    let change = MountAttributes {
        set: libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        ..Default::default()
    };
    sys::set_mount_attributes(tree.as_fd(), &change).step("the directory's mount")?;
    let target = std::fs::File::open(directory).step("the directory")?;
    attach(&tree, &target).step("the directory's mount")?;
    drop(target);
    enter(&Root(tree))
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = has.intersection(&CAPABILITIES.into()).copied().collect();
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn calls() -> Result<LinuxSeccomp, serde_json::Error> {
    let masked = |index: u32, mask: u64, value: u64| json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" });
    let equal =
        |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let allow = |names: &[&str], args: &[serde_json::Value]| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args });
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    let namespaces = (CloneFlags::all().bits() as u64) & !(libc::CLONE_VM as u64) & 0x7e02_0000;
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        // As if the kernel did not have them: so the C library takes clone in place of clone3, whose arguments cannot be
        // looked at. Another answer for that one alone would be a second filter, which the first would not let in.
        "defaultErrnoRet": libc::ENOSYS,
        "syscalls": [
            allow(CALLS, &[]),
            allow(&["mmap", "mprotect"], &[masked(2, libc::PROT_EXEC as u64, 0)]),
            allow(&["clone"], &[masked(0, thread | namespaces, thread)]),
            // Its name is all that a thread needs to set.
            allow(&["prctl"], &[equal(0, libc::PR_SET_NAME as u64)]),
            // Reading limits, of itself: how large stacks are.
            allow(&["prlimit64"], &[equal(0, 0), equal(2, 0)]),
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_knows_each_call() {
        Filters::compile(&calls().unwrap()).unwrap();
        for name in CALLS {
            assert!(name.parse::<syscalls::Sysno>().is_ok(), "{name}");
        }
    }

    #[test]
    fn what_reaches_beyond_files_is_not_allowed() {
        for name in [
            "execve", "socket", "mount", "ptrace", "kill", "tgkill", "bpf", "unshare", "ioctl",
            "chroot",
        ] {
            assert!(!CALLS.contains(&name), "{name}");
        }
    }
}
