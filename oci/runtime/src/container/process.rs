//! Turns a process in a container's namespaces into the container's program: ids, privileges, and `execve`.
//!
//! The order matters. IdMappings change first (that takes capabilities), then the parent-death signal is set (a change of ids
//! clears it), then the starter is asked to proceed (which shows that it is alive), then the remaining privileges are
//! dropped. The seccomp filter comes last, so that it need not allow any of this. Without no_new_privs it comes before
//! the capabilities are dropped.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use oci_spec::runtime::{Process, Spec};
use rustix::{
    fs::{Gid, Uid},
    process::Signal,
    thread::{CapabilitySet, ThreadNameSpaceType, remove_capability_from_bounding_set},
};

use super::{
    init, kernel,
    labels::Labels,
    landlock,
    message::FromContainer,
    scheduling,
    seccomp::Filters,
    start_options::{StartOptions, Stdio},
    user::User,
    userns::{IdMappings, UserNamespace},
};
use crate::{
    channel::{Channel, Failure, Step},
    hooks, sys,
};

/// Default PATH.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const STEP: &str = "program";

/// The program to execute and its context.
pub(crate) struct ExecPlan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    pub(crate) arguments: &'a [String],
    pub(crate) user: User,
    pub(crate) namespace: Option<&'a UserNamespace>,
    /// Result of [`filters`].
    pub(crate) filters: Option<Filters>,
    pub(crate) labels: Labels,
    /// stdin, stdout and stderr.
    pub(crate) stdio: [OwnedFd; 3],
    pub(crate) channel: &'a Channel,
    pub(crate) options: &'a StartOptions,
}

impl ExecPlan<'_> {
    /// Executes the program. Returns only on failure.
    pub(crate) fn run(self) -> Failure {
        match self.try_run() {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn try_run(self) -> Result<std::convert::Infallible, Failure> {
        let environment = environment(self.process, &self.user);
        let program = Program::new(self.arguments, &environment)?;
        kernel::set_limits(self.process)?;
        scheduling::apply(self.spec, self.process)?;
        if self.options.own_keyring {
            let leave = || sys::leave_session_keyring().step("session keyring");
            self.labels.create_keyring(leave)?;
        }
        self.labels.apply_to_exec()?;
        self.install_stdio()?;
        enter_working_directory(self.process.cwd())?;
        self.change_ids()?;
        if self.options.dies_with_parent {
            die_with_parent()?;
        }
        if self.options.start_socket.is_some() {
            // `create` already reports a missing program.
            program.check()?;
        }
        self.channel
            .send(&FromContainer::Ready(self.user.clone()))
            .step("supervisor")?;
        self.channel.wait_for_proceed().step("supervisor")?;
        let hooks = self.options.hooks.start_container().as_ref();
        let state = self.options.state_inside();
        let hooks = hooks::Prepared::new("startContainer", hooks, &state)?;
        let is_early = self.drops_privileges_early();
        if is_early {
            self.drop_privileges(self.channel)?;
        }
        let starter = self.wait_for_start()?;
        let report_to = starter.as_ref().unwrap_or(self.channel);
        let finish = || {
            if !is_early {
                self.drop_privileges(report_to)?;
            }
            // Programs of the image run under all of the container's restrictions.
            hooks.run(hooks::Side::Container)
        };
        let run_below_init = || match &self.options.init {
            Some(report) => init::fork_program(report),
            None => Ok(()),
        };
        let failure = match finish().and_then(|()| run_below_init()) {
            Ok(()) => program.execute(&environment),
            Err(failure) => failure,
        };
        // The creator is gone by now, so the starter gets the error.
        if let Some(starter) = starter {
            drop(starter.send(&FromContainer::Failed(failure.clone())));
        }
        Err(failure)
    }

    /// The agent that answers seccomp notifications receives their descriptor when the container is created and may wait for it
    /// before the start. A filter that forbids waiting for the start is installed afterwards.
    fn drops_privileges_early(&self) -> bool {
        let filters = self.filters.as_ref();
        self.options.start_socket.is_some()
            && filters.is_some_and(Filters::notify_and_permit_waiting)
    }

    fn wait_for_start(&self) -> Result<Option<Channel>, Failure> {
        if self.options.start_socket.is_none() {
            return Ok(None);
        }
        self.channel
            .send(&FromContainer::Waiting)
            .step("supervisor")?;
        self.options.wait_for_start()
    }

    /// Drops everything that the program must not have. As little as possible follows the filter, which need not
    /// allow it.
    fn drop_privileges(&self, starter: &Channel) -> Result<(), Failure> {
        let filters = self.filters.as_ref();
        sys::reset_signals().step("signals")?;
        sys::close_on_exec_from(3 + self.options.preserve_fds).step("descriptors")?;
        rustix::process::umask(self.process.user().umask().unwrap_or(0o022).into());
        let install = || match filters.map(Filters::install).transpose().step("seccomp")? {
            Some(Some(listener)) => send_listener(&listener, starter),
            _ => Ok(()),
        };
        if self.process.no_new_privileges().unwrap_or(false) {
            // The init's, which the program does not get: it has only those of its inheritable, bounding and ambient sets.
            let needed = self.options.init.as_ref().map(|_| Capability::CAP_KILL);
            limit_capabilities(self.process, needed).step("capabilities")?;
            rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
            if self.options.landlock {
                landlock::confine()?;
            }
            return install();
        }
        // Installing a filter then takes a capability, and the filter may forbid dropping it; `execve` drops it.
        let needed = filters.map(|_| Capability::CAP_SYS_ADMIN);
        limit_capabilities(self.process, needed).step("capabilities")?;
        install()
    }

    /// Pipes belong to the host's root: without a new owner, other users could not open `/dev/stdin` and `/dev/stdout`
    /// inside.
    fn install_stdio(&self) -> Result<(), Failure> {
        let ids = self
            .namespace
            .map(|space| space.ids.clone())
            .unwrap_or_default();
        let (uid, gid) = mapped(&ids, &self.user)?;
        for stream in &self.stdio {
            let mode = rustix::fs::fstat(stream).step("stdio")?.st_mode;
            if rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Fifo {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::fchown(stream, Some(uid), Some(gid)).step("stdio")?;
            }
        }
        if matches!(self.options.stdio, Stdio::Terminal { .. }) {
            let owner = Some(Uid::from_raw(uid));
            rustix::fs::fchown(&self.stdio[0], owner, None).step("terminal")?;
        }
        rustix::stdio::dup2_stdin(&self.stdio[0]).step("stdio")?;
        rustix::stdio::dup2_stdout(&self.stdio[1]).step("stdio")?;
        rustix::stdio::dup2_stderr(&self.stdio[2]).step("stdio")
    }

    /// Enters the user namespace, if there is one, and changes to the user.
    fn change_ids(&self) -> Result<(), Failure> {
        if let Some(namespace) = self.namespace {
            let kind = ThreadNameSpaceType::USER;
            rustix::thread::move_into_thread_name_spaces(namespace.fd.as_fd(), kind)
                .step("user namespace")?;
        }
        let process = self.process;
        // A capability that is inheritable but not in the bounding set must be raised before the bounding set shrinks.
        let inheritable = requested(process, CapSet::Inheritable);
        if !inheritable.is_subset(&requested(process, CapSet::Bounding)) {
            let has = caps::read(None, CapSet::Permitted).step("capabilities")?;
            let granted = inheritable.intersection(&has).copied().collect();
            caps::set(None, CapSet::Inheritable, &granted).step("capabilities")?;
        }
        drop_bounding(process).step("capabilities")?;
        // Keep the permitted capabilities across the change of uid.
        rustix::thread::set_keep_capabilities(true).step("capabilities")?;
        let groups: Vec<_> = self
            .user
            .groups
            .iter()
            .map(|gid| Gid::from_raw(*gid))
            .collect();
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        rustix::thread::set_thread_groups(&groups).step("groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).step("group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step("user")?;
        rustix::thread::set_keep_capabilities(false).step("capabilities")
    }
}

/// Sends the notification descriptor's number to the starter and waits until the agent has the descriptor.
fn send_listener(listener: &OwnedFd, starter: &Channel) -> Result<(), Failure> {
    const STEP: &str = "seccomp notification";
    let number = std::os::fd::AsRawFd::as_raw_fd(listener);
    starter.send(&FromContainer::Listener(number)).step(STEP)?;
    starter.wait_for_proceed().step(STEP)
}

/// The user's ids on the host.
fn mapped(ids: &IdMappings, user: &User) -> Result<(u32, u32), Failure> {
    let all_groups = user.groups.iter().all(|gid| ids.host_gid(*gid).is_some());
    ids.host_uid(user.uid)
        .zip(ids.host_gid(user.gid))
        .filter(|_| all_groups)
        .ok_or_else(|| {
            let (uid, gid) = (user.uid, user.gid);
            let message = format!("{uid}:{gid} is outside of the user namespace's mapping");
            Failure::new("user", &message)
        })
}

/// Compiles the specification's filters.
pub(crate) fn filters(spec: &Spec) -> Result<Option<Filters>, Failure> {
    let linux = spec.linux().as_ref();
    let section = linux.and_then(|linux| linux.seccomp().as_ref());
    section.map(Filters::compile).transpose().step("seccomp")
}

fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("supervision")
}

/// Refuses a working directory outside of the root, which would be a way out: the kernel shows it as unreachable.
fn enter_working_directory(path: &Path) -> Result<(), Failure> {
    let step = format!("working directory {}", path.display());
    rustix::process::chdir(path).step(&step)?;
    let reached = rustix::process::getcwd(Vec::new()).step(&step)?;
    if reached.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Failure::new(&step, "it is outside of the container"))
}

fn requested(process: &Process, set: CapSet) -> CapsHashSet {
    let Some(all) = process.capabilities() else {
        return CapsHashSet::new();
    };
    let listed = match set {
        CapSet::Bounding => all.bounding(),
        CapSet::Effective => all.effective(),
        CapSet::Inheritable => all.inheritable(),
        CapSet::Permitted => all.permitted(),
        CapSet::Ambient => all.ambient(),
    };
    listed
        .iter()
        .flatten()
        .filter_map(|name| {
            format!("CAP_{}", name.to_string().trim_start_matches("CAP_"))
                .parse()
                .ok()
        })
        .collect()
}

/// Capabilities that are requested and that this process does not have.
pub(crate) fn missing_capabilities(process: &Process) -> Vec<String> {
    let has = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let sets = [
        CapSet::Bounding,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
    ];
    let all = sets.into_iter().flat_map(|set| requested(process, set));
    let names: std::collections::BTreeSet<_> = all
        .filter(|one| !has.contains(one))
        .map(|one| one.to_string())
        .collect();
    names.into_iter().collect()
}

fn drop_bounding(process: &Process) -> rustix::io::Result<()> {
    let keep = requested(process, CapSet::Bounding);
    let all = caps::all().into_iter();
    all.filter(|capability| !keep.contains(capability))
        .map(|capability| CapabilitySet::from_bits_retain(capability.bitmask()))
        .try_for_each(|bit| match remove_capability_from_bounding_set(bit) {
            // Unknown to this kernel.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            other => other,
        })
}

/// Inheritable comes first, while the capability to change it is still effective; effective is always a subset of
/// permitted. `needed` stays in both: the program gets its capabilities from the inheritable, bounding and ambient
/// sets only (capabilities(7), "Transformation of capabilities during execve()").
fn limit_capabilities(
    process: &Process,
    needed: Option<Capability>,
) -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    // A capability that the host cannot grant is not an error (config.md, "capabilities"); the starter logs a warning.
    let granted = |set| -> CapsHashSet {
        let all = requested(process, set);
        all.intersection(&has).copied().collect()
    };
    let mut permitted = granted(CapSet::Permitted);
    caps::set(None, CapSet::Effective, &has)?;
    let inheritable = granted(CapSet::Inheritable);
    caps::set(None, CapSet::Inheritable, &inheritable)?;
    let mut effective: CapsHashSet = granted(CapSet::Effective)
        .intersection(&permitted)
        .copied()
        .collect();
    effective.extend(needed);
    permitted.extend(needed);
    caps::set(None, CapSet::Effective, &effective)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::clear(None, CapSet::Ambient)?;
    // An ambient capability must be permitted and inheritable. Others list ambient capabilities that are not, which
    // have no effect.
    let permitted = granted(CapSet::Permitted);
    requested(process, CapSet::Ambient)
        .into_iter()
        .filter(|one| permitted.contains(one) && inheritable.contains(one))
        .try_for_each(|capability| caps::raise(None, CapSet::Ambient, capability))
}

/// The specification's environment: of several values for a name the last one, which `exec` and callers append to
/// override earlier ones; and HOME if it is missing or empty.
fn environment(process: &Process, user: &User) -> Vec<String> {
    let mut environment: Vec<String> = Vec::new();
    let mut places = HashMap::new();
    for entry in process.env().iter().flatten() {
        let name = entry
            .split_once('=')
            .map_or(entry.as_str(), |(name, _)| name);
        match places.entry(name) {
            Entry::Occupied(place) => environment[*place.get()] = entry.clone(),
            Entry::Vacant(place) => {
                place.insert(environment.len());
                environment.push(entry.clone());
            }
        }
    }
    let home = format!("HOME={}", user.home.as_deref().unwrap_or("/"));
    match places.get("HOME").map(|place| &mut environment[*place]) {
        Some(entry) if entry == "HOME=" => *entry = home,
        Some(_) => {}
        None => environment.push(home),
    }
    environment
}

/// Candidate paths of the program, and its arguments.
struct Program {
    name: String,
    candidates: Vec<CString>,
    arguments: Vec<CString>,
}

impl Program {
    fn new(arguments: &[String], environment: &[String]) -> Result<Self, Failure> {
        let name = arguments
            .first()
            .filter(|name| !name.is_empty())
            .ok_or("neither the service nor its image says what to run: set `args`")
            .step(STEP)?;
        let candidates = candidates(name, environment);
        Ok(Self {
            name: name.clone(),
            candidates: strings(&candidates)?,
            arguments: strings(arguments)?,
        })
    }

    /// Fails if no candidate exists.
    fn check(&self) -> Result<(), Failure> {
        let exists = |path: &CString| rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok();
        if self.candidates.iter().any(exists) {
            return Ok(());
        }
        Err(self.failure(Errno::ENOENT))
    }

    /// Executes the first candidate that works. Returns only on failure. A candidate that is not executable is
    /// reported rather than the missing ones.
    fn execute(&self, environment: &[String]) -> Failure {
        let environment = match strings(environment) {
            Ok(environment) => environment,
            Err(failure) => return failure,
        };
        let mut reason = Errno::ENOENT;
        for candidate in &self.candidates {
            match nix::unistd::execve(candidate, &self.arguments, &environment) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => reason = Errno::EACCES,
                Err(other) => return self.failure(other),
                Ok(never) => match never {},
            }
        }
        self.failure(reason)
    }

    fn failure(&self, error: Errno) -> Failure {
        let name = &self.name;
        let message = match error {
            Errno::ENOENT => format!(
                "no such program in the image: {name}: executable file not found in $PATH (or its interpreter, the `#!` line's or the dynamic loader, is missing)"
            ),
            Errno::EACCES => format!("{name} is not executable for this user: permission denied"),
            Errno::ENOEXEC => format!(
                "{name} is not executable on this machine: wrong architecture, or a script without `#!` line"
            ),
            other => format!("{name} cannot be executed: {}", io::Error::from(other)),
        };
        Failure::new(STEP, &message)
    }
}

fn candidates(name: &str, environment: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect()
}

fn strings(list: &[String]) -> Result<Vec<CString>, Failure> {
    list.iter()
        .map(|text| CString::new(text.as_str()))
        .collect::<Result<_, _>>()
        .map_err(|_| "an argument or environment variable holds a NUL byte")
        .step(STEP)
}

#[cfg(test)]
mod tests;
