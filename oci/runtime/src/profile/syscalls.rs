//! Which system calls a sandboxed program may use. What is not listed answers EPERM: namespaces, mounts, modules, keys,
//! tracing, clocks, BPF, performance counters, raw handles, swapping, and all that is new to this list.

use serde_json::{Value, json};

const FILES: &[&str] = &[
    "access",
    "faccessat",
    "faccessat2",
    "open",
    "openat",
    "openat2",
    "creat",
    "close",
    "close_range",
    "read",
    "readv",
    "pread64",
    "preadv",
    "preadv2",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "lseek",
    "_llseek",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "cachestat",
    "getdents",
    "getdents64",
    "readlink",
    "readlinkat",
    "name_to_handle_at",
    "fanotify_mark",
    "statmount",
    "listmount",
    "getcwd",
    "chdir",
    "fchdir",
    "mkdir",
    "mkdirat",
    "rmdir",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mknod",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "utimensat",
    "futimesat",
    "umask",
    "truncate",
    "ftruncate",
    "fallocate",
    "fadvise64",
    "readahead",
    "sync",
    "syncfs",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "copy_file_range",
    "sendfile",
    "splice",
    "tee",
    "vmsplice",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "flock",
    "ioctl",
    "pipe",
    "pipe2",
    "memfd_create",
    "memfd_secret",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "getxattrat",
    "setxattrat",
    "listxattrat",
    "removexattrat",
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
];

const MEMORY: &[&str] = &[
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mincore",
    "msync",
    "mseal",
    "mlock",
    "mlock2",
    "munlock",
    "mlockall",
    "munlockall",
    "remap_file_pages",
    "membarrier",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "map_shadow_stack",
    "process_mrelease",
    "shmget",
    "shmat",
    "shmdt",
    "shmctl",
    "msgget",
    "msgsnd",
    "msgrcv",
    "msgctl",
    "semget",
    "semop",
    "semctl",
    "semtimedop",
    "mq_open",
    "mq_unlink",
    "mq_timedsend",
    "mq_timedreceive",
    "mq_notify",
    "mq_getsetattr",
];

const PROCESSES: &[&str] = &[
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "vfork",
    "wait4",
    "waitid",
    "waitpid",
    "getpid",
    "getppid",
    "gettid",
    "getpgid",
    "getpgrp",
    "getsid",
    "setpgid",
    "setsid",
    "kill",
    "tkill",
    "tgkill",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "arch_prctl",
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "capget",
    "capset",
    "getrlimit",
    "setrlimit",
    "prlimit64",
    "getrusage",
    "getpriority",
    "setpriority",
    "ioprio_get",
    "ioprio_set",
    "sched_yield",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_getparam",
    "sched_setparam",
    "sched_getscheduler",
    "sched_setscheduler",
    "sched_getattr",
    "sched_setattr",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_rr_get_interval",
    "getcpu",
    "set_tid_address",
    "set_robust_list",
    "get_robust_list",
    "set_thread_area",
    "get_thread_area",
    "rseq",
    "futex",
    "futex_waitv",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "restart_syscall",
    "uname",
    "sysinfo",
    "getrandom",
    "alarm",
    "pause",
    "modify_ldt",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigpending",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "uretprobe",
    "sigaltstack",
    "signalfd",
    "signalfd4",
];

const TIME: &[&str] = &[
    "time",
    "times",
    "gettimeofday",
    "adjtimex",
    "clock_adjtime",
    "nanosleep",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "getitimer",
    "setitimer",
    "timer_create",
    "timer_delete",
    "timer_gettime",
    "timer_settime",
    "timer_getoverrun",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
];

const WAITING: &[&str] = &[
    "select",
    "pselect6",
    "poll",
    "ppoll",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_ctl_old",
    "epoll_wait",
    "epoll_wait_old",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd",
    "eventfd2",
    "io_setup",
    "io_destroy",
    "io_submit",
    "io_cancel",
    "io_getevents",
    "io_pgetevents",
];

const NETWORK: &[&str] = &[
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "shutdown",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "recv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
];

/// Programs look whether the kernel has these, and go another way where it does not.
const NOT_THERE: &[&str] = &[
    // Its flags are in memory, where no filter can look: the C library then uses clone.
    "clone3",
    // Too large a surface, with operations past this filter.
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
];

/// Flags of clone(2) that make namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Address families of sockets (socket(2)): unix, inet, inet6. Not: AF_ALG, AF_VSOCK, AF_PACKET and whatever else the
/// kernel has modules for.
const FAMILIES: [u64; 3] = [1, 2, 10];

/// netlink(7), for its routes and addresses alone, which programs read.
const NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;

/// personality(2) values that change nothing about protection: Linux, with 32 bits, with an old version number; and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// ioctl(2) requests that put characters into a terminal: TIOCSTI, TIOCLINUX.
const TYPING: [u64; 2] = [0x5412, 0x541c];

/// The kernel looks at 32 bits of such arguments only, and so must the filter.
const LOW_HALF: u64 = 0xffff_ffff;

/// unix(7), the one family whose socketpair(2) programs use; TIPC has one too.
const UNIX: u64 = 1;

/// Calls that are allowed to who has a capability for them.
const WITH_CAPABILITY: [(&str, &str); 1] = [("SYS_CHROOT", "chroot")];

pub(super) fn section(capabilities: &[String]) -> Value {
    let mut plain = [FILES, MEMORY, PROCESSES, TIME, WAITING, NETWORK].concat();
    let has = |wanted: &str| capabilities.iter().any(|name| name == wanted);
    let added = WITH_CAPABILITY.iter().filter(|(name, _)| has(name));
    plain.extend(added.map(|(_, call)| *call));
    let mut rules = vec![
        json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }),
        refuse(NOT_THERE, libc::ENOSYS, &[]),
        allow("clone", &[masked(0, NAMESPACE_FLAGS, 0)]),
        allow("socket", &[equal(0, NETLINK), equal(2, NETLINK_ROUTE)]),
        allow("socketpair", &[equal(0, UNIX)]),
    ];
    rules.extend(FAMILIES.map(|family| allow("socket", &[equal(0, family)])));
    rules.extend(PERSONALITIES.map(|value| allow("personality", &[equal(0, value)])));
    rules.extend(
        TYPING.map(|request| refuse(&["ioctl"], libc::EPERM, &[masked(1, LOW_HALF, request)])),
    );
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "syscalls": rules,
    })
}

fn allow(name: &str, args: &[Value]) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args })
}

fn refuse(names: &[&str], errno: i32, args: &[Value]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args })
}

fn equal(index: u32, value: u64) -> Value {
    json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" })
}

fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

#[cfg(test)]
mod tests {
    use crate::container::seccomp::Filters;

    #[test]
    fn the_profile_compiles() {
        Filters::compile(&super::super::seccomp(&[]).unwrap()).unwrap();
    }

    #[test]
    fn what_reaches_beyond_the_container_is_not_listed() {
        let text = super::section(&[]).to_string();
        for name in [
            "mount",
            "unshare",
            "setns",
            "ptrace",
            "bpf",
            "keyctl",
            "init_module",
            "kexec_load",
            "perf_event_open",
            "userfaultfd",
            "open_by_handle_at",
            "process_vm_readv",
            "pidfd_getfd",
            "reboot",
            "chroot",
            "pivot_root",
            "swapon",
            "iopl",
            "settimeofday",
            "quotactl",
            "fsopen",
        ] {
            assert!(!text.contains(&format!("\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn chroot_comes_with_its_capability_alone() {
        let has = |capabilities: &[&str]| {
            let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
            super::section(&capabilities)
                .to_string()
                .contains("\"chroot\"")
        };
        assert!(has(&["CHOWN", "SYS_CHROOT"]));
        assert!(!has(&["CHOWN", "SETUID"]));
    }
}
