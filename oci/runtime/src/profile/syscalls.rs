//! System calls of the sandbox. Calls that are not listed fail with EPERM, among them those for namespaces, mounts,
//! modules, keys, tracing, clocks, BPF, performance counters, raw handles and swap.

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

/// Calls that fail with ENOSYS, so that programs use a fallback.
const UNAVAILABLE: &[&str] = &[
    // Its flags are in memory, which a filter cannot read; the C library falls back to clone.
    "clone3",
    // Large attack surface, and its operations bypass the filter.
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    // Segments of programs for 16 bits, which have been a way into the kernel.
    "modify_ldt",
    // Memory that the kernel itself cannot see into, nor swap, nor reclaim.
    "memfd_secret",
];

/// Flags of clone(2) that create namespaces: mount, cgroup, uts, ipc, user, pid, net.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Allowed socket families (socket(2)): unix, inet, inet6. Others, such as AF_ALG, AF_VSOCK and AF_PACKET, are not.
const FAMILIES: [u64; 3] = [1, 2, 10];

/// netlink(7), for routes and addresses only, which programs read.
const NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;

/// Allowed values of personality(2), which do not weaken protections: Linux, 32 bits, an old version number, and the
/// query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// ioctl(2) requests that inject input into a terminal: TIOCSTI, TIOCLINUX.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// The kernel reads only the lower 32 bits of these arguments.
const LOW_HALF: u64 = 0xffff_ffff;

/// unix(7), the only family that programs use with socketpair(2); TIPC supports it too.
const UNIX: u64 = 1;

/// Calls that are allowed with a capability.
const WITH_CAPABILITY: [(&str, &str); 1] = [("SYS_CHROOT", "chroot")];

pub(super) fn section(capabilities: &[String]) -> Value {
    let mut plain = [FILES, MEMORY, PROCESSES, TIME, WAITING, NETWORK].concat();
    let has = |wanted: &str| capabilities.iter().any(|name| name == wanted);
    let added = WITH_CAPABILITY.iter().filter(|(name, _)| has(name));
    plain.extend(added.map(|(_, call)| *call));
    let mut rules = vec![
        json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }),
        refuse(UNAVAILABLE, libc::ENOSYS, &[]),
        allow("clone", &[masked(0, NAMESPACE_FLAGS, 0)]),
        allow("socket", &[equal(0, NETLINK), equal(2, NETLINK_ROUTE)]),
        allow("socketpair", &[equal(0, UNIX)]),
    ];
    rules.extend(FAMILIES.map(|family| allow("socket", &[equal(0, family)])));
    rules.extend(PERSONALITIES.map(|value| allow("personality", &[equal(0, value)])));
    rules.extend(
        TERMINAL_INPUT
            .map(|request| refuse(&["ioctl"], libc::EPERM, &[masked(1, LOW_HALF, request)])),
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
mod tests;
