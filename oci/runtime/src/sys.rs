//! Every `unsafe` of the project: the system calls that neither nix nor rustix offer safely.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use seccompiler::sock_filter;

use crate::container::scheduling::Scheduling;

/// What [`clone_process`] returned in.
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The caller: the new process's pid, and a descriptor of it.
    Parent(i32, OwnedFd),
}

/// `clone3(2)` like `fork`, with namespaces as flags: all of them at once is the cheapest way into them.
pub(crate) fn clone_process(namespaces: nix::sched::CloneFlags) -> io::Result<Cloned> {
    clone_into(namespaces, None)
}

/// The same, in a cgroup of v2.
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

/// A process that waits to be killed, as which it is when this value goes. It shares this one's memory, of which nothing has to be
/// copied for it.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    process: OwnedFd,
    /// What it stands on.
    stack: Option<Box<HolderStack>>,
}

#[derive(Debug)]
#[repr(align(16))]
struct HolderStack([u8; HOLDER_STACK_BYTES]);

/// Two system calls take little, and the least that glibc has as a stack is ample.
const HOLDER_STACK_BYTES: usize = 16 << 10;

impl Holder {
    /// Makes it, in new namespaces.
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

    /// Has it end without waiting for that: where it is to run on a processor that sleeps, that takes a while.
    pub(crate) fn end(&self) -> io::Result<()> {
        Ok(kill(&self.process)?)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if end_child(&self.process).is_err() {
            // It may still stand there.
            std::mem::forget(self.stack.take());
        }
    }
}

extern "C" fn wait_to_be_killed(_: *mut libc::c_void) -> libc::c_int {
    hold()
}

/// Waits to be killed; ends with its parent.
pub(crate) fn hold() -> ! {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
    loop {
        rustix::event::pause();
    }
}

/// Kills a child of this process, whatever it is doing, and waits until it has ended.
pub(crate) fn end_child(process: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    kill(process)?;
    let wait = || waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    rustix::io::retry_on_intr(wait).map(drop)
}

fn kill(process: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL)
}

/// What `mount_setattr(2)` shall change of a mount.
#[derive(Debug, Default)]
pub(crate) struct MountAttributes<'a> {
    /// `MOUNT_ATTR_*` flags to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` flags to clear, before those are set.
    pub(crate) clear: u64,
    /// `MS_SHARED` and the like; 0 leaves it.
    pub(crate) propagation: u64,
    /// User namespace whose mapping files are shown through.
    pub(crate) id_map: Option<&'a OwnedFd>,
    /// Whether to include the mounts below.
    pub(crate) recursive: bool,
}

/// `mount_setattr(2)` on the mount that `mount` refers to.
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

/// Sets the policy of memory nodes (`set_mempolicy(2)`); `nodes` has a bit for each.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let bits = if nodes.is_empty() {
        0
    } else {
        // The kernel takes one less than it is told.
        nodes.len() * u64::BITS as usize + 1
    };
    // SAFETY: the kernel reads that many bits at most, which are there.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) })
}

/// Sets the scheduling policy (`sched_setattr(2)`).
pub(crate) fn set_scheduler(wanted: &Scheduling) -> io::Result<()> {
    // SAFETY: the structure has the kernel's layout, and its first field is its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(wanted), 0) })
}

/// Sets the I/O priority (`ioprio_set(2)`): class and priority as one number.
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: numbers are passed only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// Installs a filter like [`install_filter`], and gives the descriptor on which the system calls that it answers
/// `SECCOMP_RET_USER_NOTIF` to are told.
pub(crate) fn install_listener(
    program: &[sock_filter],
    flags: libc::c_ulong,
) -> io::Result<OwnedFd> {
    let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = seccomp_filter(program, flags)?;
    // SAFETY: the kernel made a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Installs a seccomp filter (`seccomp(2)`) without touching no_new_privs, which is the caller's choice.
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

/// An instruction of eBPF, as the kernel lays it out (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Class, operation and source of the operand.
    pub(crate) code: u8,
    /// Target in the lower half, source in the upper.
    pub(crate) registers: u8,
    /// Of a jump (beyond the next instruction) or an address.
    pub(crate) offset: i16,
    /// The operand, where it is no register.
    pub(crate) immediate: i32,
}

/// `bpf(2)`, `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    /// The beginning of the kernel's `union bpf_attr` for this command; what follows counts as zero.
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

/// `bpf(2)`, `BPF_PROG_ATTACH` of a device filter to a v2 cgroup, beside those that it and its parents have.
pub(crate) fn attach_device_filter(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    // Target, program, kind of attachment, flags.
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

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. For the start of a program, before anything owns one.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing descriptors touches no memory; callers own none of those that they close.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) })
}

/// Gives every signal its default action and unblocks all: what Rust's runtime ignores (SIGPIPE) and what the caller
/// ignored or blocked would pass through `execve` to the container's program.
pub(crate) fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    /// The kernel's `struct sigaction`: default handler, no flags, no restorer, empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const SIGNAL_SET_BYTES: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // By number, for the C library does not touch those that it uses itself (32 and 33).
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

/// Gives this process an anonymous session keyring of its own (`keyctl(2)`), so that it reaches none of its starter's keys.
/// A kernel without keyrings has none to leave.
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

/// Which version of Landlock the kernel has (`landlock_create_ruleset(2)`); none where it has not, or it is not active.
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

/// A Landlock ruleset that decides about these accesses to files.
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

/// Puts a Landlock ruleset in force for this thread, the only one, and all that come from it.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
}

/// Gives back what this program has needed and needs no longer: free memory of the allocator, what the stack no longer holds, and
/// the pages of its code, which the kernel reads again as they are executed. `code` is where that is mapped.
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
    let page = rustix::param::page_size();
    let end = (std::ptr::from_ref(&code).addr() - STACK_KEPT_BYTES) / page * page;
    let begin = (end - STACK_BYTES) as *mut libc::c_void;
    // SAFETY: the stack grows down, and this is so far below where it is now that neither this function nor those that it calls
    // stand there: nothing that lives is. What may lie further below than the stack has ever grown is mapped by nobody, for the
    // kernel keeps a MiB free there (`stack_guard_gap`).
    unsafe { libc::madvise(begin, STACK_BYTES, libc::MADV_DONTNEED) };
}

/// How much of the stack below the current function is left as it is: ample for all that it calls.
const STACK_KEPT_BYTES: usize = 16 << 10;

/// How much below that is given back: more than a start needs.
const STACK_BYTES: usize = 256 << 10;

/// Maps `file` anew in place of a mapping of the same file's same bytes.
pub(crate) fn map_from(
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

/// Forbids this process to write to what it has relocated.
pub(crate) fn make_read_only((begin, end): (u64, u64)) -> io::Result<()> {
    let length = (end - begin) as usize;
    // SAFETY: callers name a mapping that nothing writes to any more.
    let result = unsafe { libc::mprotect(begin as *mut libc::c_void, length, libc::PROT_READ) };
    check(result.into())
}

/// Puts a copy that is part of no file in place of a mapping. Nothing else may change what is in it meanwhile.
pub(crate) fn map_from_nowhere((begin, end): (u64, u64), is_writable: bool) -> io::Result<()> {
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

/// What the kernel has loaded of this program's file.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Segment>,
    /// Where addresses were relocated in what is only read from then on.
    pub(crate) relocated: (u64, u64),
}

/// One of its segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Of the bytes that are in the file.
    pub(crate) address: (u64, u64),
    pub(crate) offset: u64,
    pub(crate) is_executable: bool,
    pub(crate) is_writable: bool,
}

/// By its own program headers (`elf(5)`).
pub(crate) fn loaded() -> Loaded {
    unsafe extern "C" {
        /// Where the linker has put the file's beginning.
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

/// Has `/proc/self/exe` lead to a file (`PR_SET_MM_EXE_FILE` of `prctl(2)`), of whose predecessor nothing may be mapped any more:
/// EBUSY, which is what is looked at last. CAP_SYS_RESOURCE.
pub(crate) fn set_program(file: impl AsFd) -> io::Result<()> {
    let file = file.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    let result = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file, 0, 0) };
    check(result.into())
}

/// Where the kernel takes the parts of a process's memory to be: the beginning of its `struct prctl_mm_map`.
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

/// Where this process's heap ends.
fn program_break() -> u64 {
    // SAFETY: no growth is asked for.
    unsafe { libc::sbrk(0) as u64 }
}

/// The same (`PR_SET_MM_MAP`) with CAP_SYS_ADMIN alone, of kernels with `CONFIG_CHECKPOINT_RESTORE`. `layout` is what the kernel knows
/// already, but for the heap's end, which is looked up.
pub(crate) fn set_program_and_layout(file: impl AsFd, layout: &MemoryLayout) -> io::Result<()> {
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

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Memory of programs that are linked with musl, whose own allocator would take longer than all the rest of a container's start.
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
        /// Bytes that are allocated, and most that ever were.
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
    /// Free pieces that are looked for: of these sizes, and so many at most.
    const LARGEST: usize = 1024 * PAGE;
    const SMALLEST: usize = 16 * PAGE;
    const PIECES: usize = 64;
    /// What is worth the search.
    const MUCH: usize = 512 << 10;

    /// Gives free memory back to the kernel. The heap itself does so with its end alone. What is free between what is in use, whoever
    /// has it can give back the pages of: so it is taken, largest piece first, and freed again.
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
                // It is new: there was none of that size.
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
