//! Confines a program that parses untrusted input and writes the result below one directory. The program keeps that
//! directory, a few system calls and a few capabilities.
//!
//! Its standard descriptors stay open: it communicates through them.

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
        landlock,
        mounts::attach,
        resolve::Root,
        rootfs::{clone_tree, enter},
        seccomp::Filters,
    },
    sys::{self, MountAttributes},
};

/// Needed to create files with any owner, mode and attribute.
const CAPABILITIES: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
    // Needed for overlayfs's opaque marker (`trusted.*`). The seccomp filter forbids everything else that it would
    // allow.
    Capability::CAP_SYS_ADMIN,
];

/// Maximum number of descriptors: removing a tree takes one per level.
const OPEN_FILES: u64 = 1024;

/// System calls without conditions on their arguments.
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
    "flistxattr",
    "fremovexattr",
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

/// Confines this program to `directory`, which becomes its root and its working directory. The program must not have
/// started a thread yet. `memory_bytes` limits its address space. It is killed when the thread that started it exits.
/// Returns the protections that the kernel does not support.
///
/// # Errors
/// What could not be done. The program must exit then: it is only partly confined.
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

/// Moves into new namespaces with the directory as the root, where devices cannot be opened and nothing can be
/// executed.
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
    // Allow threads, but no processes.
    let thread = libc::CLONE_THREAD as u64;
    let namespaces = (CloneFlags::all().bits() as u64) & !(libc::CLONE_VM as u64) & 0x7e02_0000;
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        // As if the kernel lacked the call: the C library then uses clone instead of clone3, whose arguments a filter
        // cannot read. A different errno for clone3 alone would take a second filter, whose installation the first one
        // forbids.
        "defaultErrnoRet": libc::ENOSYS,
        "syscalls": [
            allow(CALLS, &[]),
            allow(&["mmap", "mprotect"], &[masked(2, libc::PROT_EXEC as u64, 0)]),
            allow(&["clone"], &[masked(0, thread | namespaces, thread)]),
            // A thread needs prctl only to set its name.
            allow(&["prctl"], &[equal(0, libc::PR_SET_NAME as u64)]),
            // Only to read the process's own limits, such as the stack size.
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
    fn calls_beyond_files_are_not_allowed() {
        for name in [
            "execve", "socket", "mount", "ptrace", "kill", "tgkill", "bpf", "unshare", "ioctl",
            "chroot",
        ] {
            assert!(!CALLS.contains(&name), "{name}");
        }
    }
}
