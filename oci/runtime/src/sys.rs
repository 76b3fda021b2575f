//! All `unsafe` code of the project: system calls that neither nix nor rustix wrap safely.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use seccompiler::sock_filter;

/// Result of [`clone_process`].
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// In the parent: the pid and a pidfd of the child.
    Parent(i32, OwnedFd),
}

/// `clone3(2)` like `fork`, with namespaces as flags. Creating them together is cheapest.
pub(crate) fn clone_process(namespaces: nix::sched::CloneFlags) -> io::Result<Cloned> {
    clone_into(namespaces, None)
}

/// The same, into a v2 cgroup.
pub(crate) fn clone_into(
    namespaces: nix::sched::CloneFlags,
    cgroup: Option<&OwnedFd>,
) -> io::Result<Cloned> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: i32 = -1;
    let mut args = clone_args(namespaces, &mut pidfd);
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments point at live values of the kernel's layout. Without CLONE_VM the child has its own copy of
    // the memory, and this program is single-threaded (it never starts a thread), so no lock is held across the copy.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
        pid => Ok(Cloned::Parent(pid as i32, unsafe {
            OwnedFd::from_raw_fd(pidfd)
        })),
    }
}

fn clone_args(namespaces: nix::sched::CloneFlags, pidfd: &mut i32) -> libc::clone_args {
    // SAFETY: the structure holds integers only; all zero is its documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.bits() as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args
}

/// A child that waits to be killed, and is when this value is dropped. It shares this process's memory, so that
/// nothing is copied for it.
#[derive(Debug)]
pub(crate) struct NamespaceHolder {
    pub(crate) pid: i32,
    process: OwnedFd,
    /// Its stack.
    stack: Option<Box<HolderStack>>,
}

#[derive(Debug)]
#[repr(align(16))]
struct HolderStack([u8; HOLDER_STACK_BYTES]);

/// Ample for two system calls; glibc's minimum.
const HOLDER_STACK_BYTES: usize = 16 << 10;

impl NamespaceHolder {
    /// Creates it in new namespaces.
    pub(crate) fn in_new(namespaces: nix::sched::CloneFlags) -> io::Result<Self> {
        let mut stack = Box::new(HolderStack([0; HOLDER_STACK_BYTES]));
        let mut pidfd: i32 = -1;
        let flags = namespaces.bits() | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: it grows down from the end of memory that lives, and is not looked at, until the process is gone. What it does
        // there are two system calls, and no signal handler returns to it: no other memory of this process is touched.
        let pid = unsafe {
            let top = stack.0.as_mut_ptr().add(HOLDER_STACK_BYTES).cast();
            let nothing = std::ptr::null_mut();
            libc::clone(wait_to_be_killed, top, flags, nothing, &raw mut pidfd)
        };
        if pid == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            pid,
            // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
            process: unsafe { OwnedFd::from_raw_fd(pidfd) },
            stack: Some(stack),
        })
    }

    /// Kills it without waiting: waking an idle CPU to run it takes a while.
    pub(crate) fn end(&self) -> io::Result<()> {
        Ok(kill(&self.process)?)
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        if end_child(&self.process).is_err() {
            // It may still use the stack.
            std::mem::forget(self.stack.take());
        }
    }
}

extern "C" fn wait_to_be_killed(_: *mut libc::c_void) -> libc::c_int {
    hold()
}

/// Waits to be killed. Killed with its parent.
pub(crate) fn hold() -> ! {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
    loop {
        rustix::event::pause();
    }
}

/// Kills a child and reaps it.
pub(crate) fn end_child(process: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    kill(process)?;
    let wait = || waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    rustix::io::retry_on_intr(wait).map(drop)
}

fn kill(process: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL)
}

/// Changes for `mount_setattr(2)`.
#[derive(Debug, Default)]
pub(crate) struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*` flags to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` flags to clear, before those are set.
    pub(crate) clear: u64,
    /// `MS_SHARED` and the like; 0 keeps the propagation.
    pub(crate) propagation: u64,
    /// User namespace whose mapping is applied to the files.
    pub(crate) id_map: Option<&'a OwnedFd>,
    /// Whether to apply the changes recursively.
    pub(crate) recursive: bool,
}

/// `mount_setattr(2)` on a mount.
pub(crate) fn set_mount_attributes(mount: impl AsFd, change: &MountAttributes) -> io::Result<()> {
    // SAFETY: the structure holds integers only; all zero changes nothing.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = change.set;
    attributes.attr_clr = change.clear;
    attributes.propagation = change.propagation;
    if let Some(namespace) = change.id_map {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = namespace.as_raw_fd() as u64;
    }
    let recursive = if change.recursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: the path is a static C string, the attributes are of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Sets the execution domain (`personality(2)`).
pub(crate) fn set_personality(domain: libc::c_int) -> io::Result<()> {
    // SAFETY: a number is passed; it changes how system calls answer, and no memory.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// Sets the memory policy (`set_mempolicy(2)`); `nodes` is a bit mask.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let bits = if nodes.is_empty() {
        0
    } else {
        // The kernel decrements the number of bits.
        nodes.len() * u64::BITS as usize + 1
    };
    // A number of bits means nothing without a mask, and the kernel refuses none with one.
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads that many bits at most, which are there.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Argument of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Scheduling {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) util_min: u32,
    pub(crate) util_max: u32,
}

/// Sets the scheduling policy (`sched_setattr(2)`).
pub(crate) fn set_scheduler(wanted: &Scheduling) -> io::Result<()> {
    // SAFETY: the structure has the kernel's layout, and its first field is its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(wanted), 0) })
}

/// Sets the I/O priority (`ioprio_set(2)`): class and priority combined.
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: numbers are passed only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// Installs a filter like [`install_filter`] and returns its notification descriptor (`SECCOMP_RET_USER_NOTIF`).
pub(crate) fn install_listener(
    program: &[sock_filter],
    flags: libc::c_ulong,
) -> io::Result<OwnedFd> {
    let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = seccomp_filter(program, flags)?;
    // SAFETY: the kernel made a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Installs a seccomp filter (`seccomp(2)`) without setting no_new_privs.
pub(crate) fn install_filter(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    seccomp_filter(program, flags).map(drop)
}

fn seccomp_filter(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies the program, whose length is its own; seccompiler's instruction has the kernel's layout.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    check(result)?;
    Ok(result)
}

/// An eBPF instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Class, operation and operand type.
    pub(crate) code: u8,
    /// Target in the lower half, source in the upper half.
    pub(crate) registers: u8,
    /// Offset of a jump (from the next instruction) or an address.
    pub(crate) offset: i16,
    /// Immediate operand.
    pub(crate) immediate: i32,
}

/// `bpf(2)`, `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    /// The beginning of `union bpf_attr` for this command; the kernel treats the rest as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        length: u32,
        instructions: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        length: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel copies the attributes, of the size that is passed, and the program and the licence that they point
    // at, which live through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        )
    };
    check(fd)?;
    // SAFETY: the kernel made a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `bpf(2)`, `BPF_PROG_ATTACH` of a device filter to a v2 cgroup, in addition to those of the cgroup and its parents.
pub(crate) fn attach_device_filter(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    // Target, program, attach type, flags.
    let attributes: [u32; 4] = [
        cgroup.as_fd().as_raw_fd() as u32,
        program.as_fd().as_raw_fd() as u32,
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ];
    // SAFETY: the kernel copies the attributes, of the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    })
}

/// Brings up the device `lo` of this process's network namespace (netdevice(7)).
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let cloexec = SocketFlags::CLOEXEC;
    let socket = match socket_with(AddressFamily::INET, SocketType::DGRAM, cloexec, None) {
        // A kernel without IPv4 takes the request through any other socket.
        Err(rustix::io::Errno::AFNOSUPPORT) => {
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, cloexec, None)?
        }
        other => other?,
    };
    // SAFETY: the structure holds integers only; all zero is an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *target = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads a structure of this layout, which lives through the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    check(result.into())
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. For the start of a program, before anything owns a descriptor.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing descriptors touches no memory; callers own none of those that they close.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) })
}

/// `fork(2)`, of this process, which has one thread. Returns the child's pid in the parent, none in the child. Unlike
/// [`clone_process`], under filters that know `clone` alone.
pub(crate) fn fork() -> io::Result<Option<rustix::process::Pid>> {
    // SAFETY: without other threads, no lock is held in the child that nobody releases.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::process::Pid::from_raw(pid))
}

/// Overwrites this process's arguments by a text and zeros. The range is that of the kernel (proc_pid_stat(5), `arg_start`,
/// `arg_end`), and nothing refers to an argument meanwhile.
pub(crate) fn overwrite_arguments((start, end): (u64, u64), text: &[u8]) {
    let length = end.saturating_sub(start) as usize;
    // SAFETY: the kernel has placed the arguments there, on the stack, which is writable and stays. This process has one
    // thread, and copies of arguments, not references to them.
    let arguments = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
    arguments.fill(0);
    let text = &text[..text.len().min(length)];
    arguments[..text.len()].copy_from_slice(text);
}

/// Ends this process without running exit handlers.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return, and runs no code of this process.
    unsafe { libc::_exit(code) }
}

/// Blocks every signal.
pub(crate) fn block_signals() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).map_err(Into::into)
}

/// Waits for a blocked signal and takes it. Returns its number.
pub(crate) fn wait_for_signal() -> i32 {
    let all = nix::sys::signal::SigSet::all();
    loop {
        // SAFETY: the set is initialised, and the kernel is given no place for details.
        let number = unsafe { libc::sigwaitinfo(all.as_ref(), std::ptr::null_mut()) };
        if number > 0 {
            return number;
        }
    }
}

/// A real-time signal by its number.
pub(crate) fn realtime_signal(number: i32) -> Option<rustix::process::Signal> {
    let range = libc::SIGRTMIN()..=libc::SIGRTMAX();
    // SAFETY: it is a signal of the kernel that the C library does not use itself.
    let signal = |number| unsafe { rustix::process::Signal::from_raw_unchecked(number) };
    range.contains(&number).then(|| signal(number))
}

/// Resets every signal to its default action and unblocks all. Ignored signals (Rust's runtime ignores SIGPIPE) and
/// blocked ones would survive `execve`.
pub(crate) fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    /// The kernel's `struct sigaction`: default handler, no flags, no restorer, empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const SIGNAL_SET_BYTES: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // By number: the C library refuses its internal signals (32 and 33).
        // SAFETY: the kernel reads 32 bytes, which are there; a default action runs no code of ours. That SIGKILL's and
        // SIGSTOP's cannot be set is no loss.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                SIGNAL_SET_BYTES,
            )
        };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(Into::into)
}

/// Joins a new anonymous session keyring (`keyctl(2)`), so that the starter's keys are out of reach. A kernel without
/// keyrings has none to leave.
pub(crate) fn leave_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    match check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// The kernel's Landlock ABI version (`landlock_create_ruleset(2)`); none if it is missing or not active.
pub(crate) fn landlock_version() -> Option<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel reads no attributes, and none are passed.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u64>(),
            0_usize,
            VERSION,
        )
    };
    (version > 0).then_some(version)
}

/// Creates a Landlock ruleset that handles these file accesses.
pub(crate) fn landlock_ruleset(handled: u64) -> io::Result<OwnedFd> {
    // SAFETY: the attributes' first field is all that is passed, by its size.
    let ruleset = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            size_of::<u64>(),
            0,
        )
    };
    check(ruleset)?;
    // SAFETY: the kernel has just made the descriptor, close-on-exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(ruleset as i32) })
}

/// Allows accesses beneath a directory (`landlock_add_rule(2)`).
pub(crate) fn landlock_allow(
    ruleset: &OwnedFd,
    directory: impl AsFd,
    access: u64,
) -> io::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    /// `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        parent: i32,
    }
    let rule = PathBeneath {
        access,
        parent: directory.as_fd().as_raw_fd(),
    };
    // SAFETY: the rule is of the kernel's layout and lives throughout the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
}

/// Applies a Landlock ruleset to this thread, the only one, and its descendants.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
}

/// Returns memory to the kernel that only the start needed: free heap, unused stack, and code pages, which are read
/// again when they are executed. `code` is where the code is mapped.
pub(crate) fn release_memory(code: &[(u64, u64)]) {
    #[cfg(target_env = "gnu")]
    // SAFETY: it gives free memory back to the kernel; whatever is allocated stays as it is.
    unsafe {
        libc::malloc_trim(0)
    };
    #[cfg(target_env = "musl")]
    heap::trim();
    for (begin, end) in code {
        let (address, length) = (*begin as *mut libc::c_void, end - begin);
        // SAFETY: callers name mappings of a file that are executable and not writable: what they hold is in the file, and
        // comes from there again. Failing to give it back is no loss.
        unsafe { libc::madvise(address, length as usize, libc::MADV_DONTNEED) };
    }
    let page = page_size();
    let end = (std::ptr::from_ref(&code).addr() - STACK_KEPT_BYTES) / page * page;
    let begin = (end - STACK_BYTES) as *mut libc::c_void;
    // SAFETY: the stack grows down, and this is so far below where it is now that neither this function nor those that it calls
    // stand there: nothing that lives is. What may lie further below than the stack has ever grown is mapped by nobody, for the
    // kernel keeps a MiB free there (`stack_guard_gap`).
    unsafe { libc::madvise(begin, STACK_BYTES, libc::MADV_DONTNEED) };
}

/// Size of a page, as the C library has it from the start. Rustix reads `/proc/self/auxv` for it where the kernel is older than
/// 6.4, which a process that is not dumpable may not, and panics.
pub(crate) fn page_size() -> usize {
    // SAFETY: it passes no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Bytes below the current stack frame that are kept: ample for the calls here.
const STACK_KEPT_BYTES: usize = 16 << 10;

/// Bytes below that to return: more than a start needs.
const STACK_BYTES: usize = 256 << 10;

/// Maps `file` over a mapping of the same bytes of the same file.
pub(crate) fn remap_file(
    file: impl AsFd,
    offset: u64,
    (begin, end): (u64, u64),
    is_executable: bool,
) -> io::Result<()> {
    let executed = if is_executable { libc::PROT_EXEC } else { 0 };
    // SAFETY: callers name a mapping that is not writable and whose bytes are the file's: whoever reads or executes there, this
    // function included, finds the same before and after, and the kernel exchanges it at once.
    let mapped = unsafe {
        libc::mmap(
            begin as *mut libc::c_void,
            (end - begin) as usize,
            libc::PROT_READ | executed,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            file.as_fd().as_raw_fd(),
            offset as libc::off_t,
        )
    };
    is_mapped(mapped)
}

/// Makes a mapping read-only.
pub(crate) fn make_read_only((begin, end): (u64, u64)) -> io::Result<()> {
    let length = (end - begin) as usize;
    // SAFETY: callers name a mapping that nothing writes to any more.
    let result = unsafe { libc::mprotect(begin as *mut libc::c_void, length, libc::PROT_READ) };
    check(result.into())
}

/// Replaces a mapping by an anonymous copy. Nothing else may modify its content meanwhile.
pub(crate) fn map_anonymous_copy((begin, end): (u64, u64), is_writable: bool) -> io::Result<()> {
    let length = (end - begin) as usize;
    let place = begin as *mut libc::c_void;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: the kernel finds a place where nothing is.
    let copy = unsafe { libc::mmap(std::ptr::null_mut(), length, writable, flags, -1, 0) };
    is_mapped(copy)?;
    // SAFETY: callers name a readable mapping of that length, and the copy is as long and somewhere else. This program has one
    // thread, which does nothing between the copying and the exchange: the same bytes are in both.
    let moved = unsafe {
        std::ptr::copy_nonoverlapping(place.cast::<u8>(), copy.cast::<u8>(), length);
        if !is_writable {
            libc::mprotect(copy, length, libc::PROT_READ);
        }
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        libc::mremap(copy, length, length, how, place)
    };
    is_mapped(moved)
}

fn is_mapped(address: *mut libc::c_void) -> io::Result<()> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Loaded segments of this program.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Segment>,
    /// Address range of relocated read-only data.
    pub(crate) relocated: (u64, u64),
}

/// A loaded segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Address range of the bytes that are in the file.
    pub(crate) address: (u64, u64),
    pub(crate) offset: u64,
    pub(crate) is_executable: bool,
    pub(crate) is_writable: bool,
}

/// Reads this program's own program headers (`elf(5)`).
pub(crate) fn loaded() -> Loaded {
    unsafe extern "C" {
        /// Start of the file, defined by the linker.
        static __ehdr_start: libc::Elf64_Ehdr;
    }
    // SAFETY: linkers define it as the file's header, which is loaded with the program's headers behind it, and stays.
    let (begin, headers) = unsafe {
        let begin = &raw const __ehdr_start;
        let first = begin.cast::<u8>().add((*begin).e_phoff as usize);
        let count = (*begin).e_phnum.into();
        let headers = std::slice::from_raw_parts(first.cast::<libc::Elf64_Phdr>(), count);
        (begin as u64, headers)
    };
    let loads = || headers.iter().filter(|it| it.p_type == libc::PT_LOAD);
    let first = loads().find(|it| it.p_offset == 0);
    let base = begin - first.map_or(0, |it| it.p_vaddr);
    let range = |begin: u64, length: u64| (base + begin, base + begin + length);
    let relocated = headers.iter().find(|it| it.p_type == libc::PT_GNU_RELRO);
    Loaded {
        segments: loads()
            .map(|it| Segment {
                address: range(it.p_vaddr, it.p_filesz),
                offset: it.p_offset,
                is_executable: it.p_flags & libc::PF_X != 0,
                is_writable: it.p_flags & libc::PF_W != 0,
            })
            .collect(),
        relocated: relocated.map_or((0, 0), |it| range(it.p_vaddr, it.p_memsz)),
    }
}

/// Changes `/proc/self/exe` (`PR_SET_MM_EXE_FILE` of `prctl(2)`). Takes CAP_SYS_RESOURCE. The kernel checks last that
/// nothing of the previous file is mapped (EBUSY).
pub(crate) fn set_exe_file(file: impl AsFd) -> io::Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let result = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file, 0, 0) };
    check(result.into())
}

/// Memory layout of a process: the beginning of `struct prctl_mm_map`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct MemoryLayout {
    pub(crate) start_code: u64,
    pub(crate) end_code: u64,
    pub(crate) start_data: u64,
    pub(crate) end_data: u64,
    pub(crate) start_brk: u64,
    pub(crate) brk: u64,
    pub(crate) start_stack: u64,
    pub(crate) arg_start: u64,
    pub(crate) arg_end: u64,
    pub(crate) env_start: u64,
    pub(crate) env_end: u64,
}

/// The current program break.
fn program_break() -> u64 {
    // SAFETY: no growth is asked for.
    unsafe { libc::sbrk(0) as u64 }
}

/// Like [`set_exe_file`] by `PR_SET_MM_MAP`, which takes only CAP_SYS_ADMIN but a kernel with
/// `CONFIG_CHECKPOINT_RESTORE`. `layout` repeats what the kernel knows, except for the program break, which is
/// queried.
pub(crate) fn set_memory_map(file: impl AsFd, layout: &MemoryLayout) -> io::Result<()> {
    /// The kernel's `struct prctl_mm_map`.
    #[repr(C)]
    struct Map {
        layout: MemoryLayout,
        auxv: u64,
        auxv_size: u32,
        exe_fd: u32,
    }
    let map = Map {
        layout: MemoryLayout {
            brk: program_break(),
            ..*layout
        },
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_fd().as_raw_fd() as u32,
    };
    // SAFETY: the kernel copies a structure of its own layout and of the size that is passed. It holds what is so already; with
    // no auxiliary vector given, that stays.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const map,
            size_of::<Map>(),
            0,
        )
    };
    check(result.into())
}

/// `struct fsxattr` (ioctl_xfs_fsgetxattr(2)).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileAttributes {
    /// `FS_XFLAG_*`.
    pub(crate) flags: u32,
    extent_size: u32,
    extents: u32,
    /// The project that the file is counted for.
    pub(crate) project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// Reads the attributes of a file that file systems have in common.
pub(crate) fn file_attributes(file: impl AsFd) -> rustix::io::Result<FileAttributes> {
    use rustix::ioctl::{Getter, ioctl, opcode};
    const FS_IOC_FSGETXATTR: rustix::ioctl::Opcode = opcode::read::<FileAttributes>(b'X', 31);
    // SAFETY: the kernel writes a structure of this layout, which holds integers only.
    unsafe { ioctl(file, Getter::<FS_IOC_FSGETXATTR, FileAttributes>::new()) }
}

/// Sets them.
pub(crate) fn set_file_attributes(
    file: impl AsFd,
    attributes: FileAttributes,
) -> rustix::io::Result<()> {
    use rustix::ioctl::{Setter, ioctl, opcode};
    const FS_IOC_FSSETXATTR: rustix::ioctl::Opcode = opcode::write::<FileAttributes>(b'X', 32);
    // SAFETY: the kernel reads a structure of this layout.
    unsafe {
        ioctl(
            file,
            Setter::<FS_IOC_FSSETXATTR, FileAttributes>::new(attributes),
        )
    }
}

/// `struct if_dqblk` (quotactl(2)).
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ProjectQuota {
    /// In units of 1 KiB; 0: none.
    pub(crate) hard_limit_blocks: u64,
    pub(crate) soft_limit_blocks: u64,
    /// In bytes.
    pub(crate) used_bytes: u64,
    /// 0: none.
    pub(crate) hard_limit_inodes: u64,
    pub(crate) soft_limit_inodes: u64,
    pub(crate) used_inodes: u64,
    pub(crate) block_grace: u64,
    pub(crate) inode_grace: u64,
    /// `QIF_*`: which of these are set.
    pub(crate) valid: u32,
}

/// Reads the quota of a project on the file system of a file.
pub(crate) fn project_quota(file: impl AsFd, project: u32) -> io::Result<ProjectQuota> {
    const Q_GETQUOTA: u32 = 0x80_0007;
    let mut quota = ProjectQuota::default();
    // SAFETY: the kernel writes a structure of this layout, which lives through the call and holds integers only.
    unsafe { quotactl(file, Q_GETQUOTA, project, (&raw mut quota).cast()) }?;
    Ok(quota)
}

/// Sets it.
pub(crate) fn set_project_quota(
    file: impl AsFd,
    project: u32,
    mut quota: ProjectQuota,
) -> io::Result<()> {
    const Q_SETQUOTA: u32 = 0x80_0008;
    // SAFETY: the kernel reads a structure of this layout, which lives through the call.
    unsafe { quotactl(file, Q_SETQUOTA, project, (&raw mut quota).cast()) }
}

/// `FS_QUOTA_*`: which quotas the file system of a file counts and enforces.
pub(crate) fn quota_flags(file: impl AsFd) -> io::Result<u16> {
    /// `struct fs_quota_statv`.
    #[repr(C)]
    #[derive(Default)]
    struct State {
        version: i8,
        padding: u8,
        flags: u16,
        rest: [u64; 20],
    }
    const Q_XGETQSTATV: u32 = 0x5808;
    let mut state = State {
        version: 1,
        ..State::default()
    };
    // SAFETY: the kernel writes a structure that is not larger than this one, which lives through the call and holds integers only.
    unsafe { quotactl(file, Q_XGETQSTATV, 0, (&raw mut state).cast()) }?;
    Ok(state.flags)
}

/// `quotactl_fd(2)` about projects.
///
/// # Safety
/// `argument` points at a live value of the command's structure.
unsafe fn quotactl(
    file: impl AsFd,
    command: u32,
    id: u32,
    argument: *mut libc::c_void,
) -> io::Result<()> {
    const PRJQUOTA: u32 = 2;
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the caller's.
    check(unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file,
            command << 8 | PRJQUOTA,
            id,
            argument,
        )
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Allocator of programs that are linked with musl, whose own would dominate the start of a container.
#[cfg(target_env = "musl")]
mod heap {
    use std::{
        alloc::{GlobalAlloc, Layout},
        ptr::null_mut,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use dlmalloc::Dlmalloc;

    #[global_allocator]
    static HEAP: Heap = Heap(Mutex::new(Owned {
        heap: Dlmalloc::new(),
        used: 0,
        most: 0,
    }));

    struct Heap(Mutex<Owned>);

    struct Owned {
        heap: Dlmalloc,
        /// Bytes allocated now, and at most so far.
        used: usize,
        most: usize,
    }

    // SAFETY: what it points to is its own, whichever thread it is used by.
    unsafe impl Send for Owned {}

    impl Heap {
        fn lock(&self) -> MutexGuard<'_, Owned> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Owned {
        fn count(&mut self, freed: usize, allocated: usize) {
            self.used = self.used.wrapping_sub(freed).wrapping_add(allocated);
            self.most = self.most.max(self.used);
        }
    }

    // SAFETY: `Dlmalloc` keeps this trait's promises; nobody else uses it meanwhile.
    unsafe impl GlobalAlloc for Heap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let mut owned = self.lock();
            owned.count(0, layout.size());
            // SAFETY: callers name a layout whose size is not zero.
            unsafe { owned.heap.malloc(layout.size(), layout.align()) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            let mut owned = self.lock();
            owned.count(0, layout.size());
            // SAFETY: the same.
            unsafe { owned.heap.calloc(layout.size(), layout.align()) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            let mut owned = self.lock();
            owned.count(layout.size(), 0);
            // SAFETY: callers name memory that was allocated here with this layout.
            unsafe { owned.heap.free(memory, layout.size(), layout.align()) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            let mut owned = self.lock();
            owned.count(layout.size(), size);
            let (old, align) = (layout.size(), layout.align());
            // SAFETY: the same, and a size that is not zero.
            unsafe { owned.heap.realloc(memory, old, align, size) }
        }
    }

    const PAGE: usize = 4096;
    /// Sizes and number of free pieces to look for.
    const LARGEST: usize = 1024 * PAGE;
    const SMALLEST: usize = 16 * PAGE;
    const PIECES: usize = 64;
    /// Minimum peak for which the search is worthwhile.
    const MUCH: usize = 512 << 10;

    /// Returns free memory to the kernel. dlmalloc itself returns only the end of the heap. Free pieces in the middle
    /// are allocated, the largest first, their pages released, and the pieces freed again.
    pub(super) fn trim() {
        let mut owned = HEAP.lock();
        let mut taken = [(null_mut(), 0); PIECES];
        let mut count = 0;
        let mut size = if owned.most < MUCH { 0 } else { LARGEST };
        while size >= SMALLEST && count < PIECES {
            // SAFETY: it is freed below, with the same size and alignment, and nothing is kept in it.
            let piece = unsafe { owned.heap.malloc(size, PAGE) };
            if piece.is_null() {
                break;
            }
            taken[count] = (piece, size);
            count += 1;
            if is_resident(piece, size) {
                // SAFETY: these are whole pages of what was allocated here.
                unsafe { libc::madvise(piece.cast(), size, libc::MADV_DONTNEED) };
            } else {
                // Freshly mapped: there was no free piece of this size.
                size /= 2;
            }
        }
        for (piece, size) in taken.into_iter().take(count) {
            // SAFETY: as it was allocated.
            unsafe { owned.heap.free(piece, size, PAGE) };
        }
        // SAFETY: whatever is allocated stays as it is.
        unsafe { owned.heap.trim(0) };
    }

    fn is_resident(piece: *mut u8, size: usize) -> bool {
        let mut pages = [0; LARGEST / PAGE];
        // SAFETY: the kernel writes a byte for each page of what was allocated.
        let found = unsafe { libc::mincore(piece.cast(), size, pages.as_mut_ptr()) };
        found == 0 && pages.iter().any(|page| page & 1 != 0)
    }
}
