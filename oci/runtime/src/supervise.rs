//! The supervisor: starts a container, keeps its output, waits for its exit and records the exit status.
//!
//! ```text
//! caller ── tucano_oci supervise ──fork──> supervisor (own session) ──clone3──> container
//!              │ exits at once                 │ receives a state directory       └─ dies with the supervisor
//!              └─ reaped by the caller         │ replies: started | failed
//!                                              └─ later reaped by init
//! ```
//!
//! It is single-threaded and holds only two pipes, a pidfd, the lock of the state directory, and the attach socket
//! with a few clients ([`crate::attach`]).

use std::{
    fs::{self, File},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    sched::CloneFlags,
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use oci_spec::runtime::LinuxResources;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::Mode,
    pipe::PipeFlags,
    process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid},
};

use crate::{
    attach::{self, AttachServer},
    cgroup::{Cgroup, CgroupTiming, Hierarchies},
    channel::{Channel, Failure, Report, StartRequest, Step},
    container::{
        init::ProgramEnd,
        rootfs,
        start_options::{StartOptions, Stdio},
        userns::UserNamespace,
    },
    exe,
    launch::{Exit, Launch},
    logs::{Outputs, Source, now_ms},
    record::Record,
    start::ContainerStart,
    state_dir::{self, ProcessId, StateDir},
    sys::{self, Cloned},
    title::Title,
};

/// Time limit of one step of a start: milliseconds are usual, but a mount may hang.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Mode of a pipe that a container writes to.
const OUTPUT_MODE: u32 = 0o622;

/// Maximum number of chunks read from each stream before other work.
const FAIR_ROUNDS: usize = 64;

/// Maximum number of chunks read after the exit: more than a pipe can hold (`/proc/sys/fs/pipe-max-size`, 1 MiB).
const LAST_ROUNDS: usize = 1024;

/// `tucano_oci supervise`: daemonizes, waits on stdin (a [`Channel`]) for a state directory, and supervises its
/// container. Exits if the caller exits before that.
pub fn run() -> Result<(), String> {
    sys::close_from(3).map_err(|error| format!("closing descriptors: {error}"))?;
    crate::exe::protect().map_err(|error| error.to_string())?;
    match sys::clone_process(CloneFlags::empty()) {
        Ok(Cloned::Parent(..)) => return Ok(()),
        Ok(Cloned::Child) => {}
        Err(error) => return Err(format!("forking: {error}")),
    }
    let title = Title::find();
    let caller = daemonize().map_err(|failure| failure.to_string())?;
    let facts = HostFacts::before();
    let request = caller.receive_with::<StartRequest>();
    let Some((StartRequest { state_dir }, descriptors)) =
        request.map_err(|error| format!("request: {error}"))?
    else {
        return Ok(());
    };
    let [lock] = <[_; 1]>::try_from(descriptors).map_err(|_| "request: the lock is missing")?;
    if let Some(title) = title {
        title.set(&state_dir);
    }
    let start = |facts: HostFacts| Ok((Supervisor::start(StateDir(&state_dir), &facts)?, facts));
    match facts.and_then(start) {
        Ok((supervisor, facts)) => {
            supervisor.report_started(caller, facts);
            supervisor.supervise(&lock);
        }
        // A caller that exited finds that the container does not run.
        Err(failure) => drop(caller.send(&Report::Failed(failure))),
    }
    Ok(())
}

/// Detaches from the caller's session, directory, umask and descriptors. Returns the socket to the caller.
fn daemonize() -> Result<Channel, Failure> {
    const STEP: &str = "daemonizing";
    rustix::process::setsid().step(STEP)?;
    rustix::process::chdir("/").step(STEP)?;
    rustix::process::umask(0o022.into());
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step(STEP)?;
    let caller = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).step(STEP)?;
    dup2_stdin(&null).step(STEP)?;
    dup2_stdout(&null).step(STEP)?;
    dup2_stderr(&null).step(STEP)?;
    Ok(Channel::over(caller))
}

/// There is one supervisor per container: starting takes most of its memory, waiting needs little.
fn release_memory() {
    sys::release_memory(&exe::file_regions());
}

/// Facts that are gathered before there is a container.
struct HostFacts {
    boot_id: String,
    own: ProcessId,
    /// Pidfd of this process, for the caller.
    descriptor: OwnedFd,
    hierarchies: Hierarchies,
}

impl HostFacts {
    fn before() -> Result<Self, Failure> {
        let descriptor = pidfd_open(getpid(), PidfdFlags::empty());
        Ok(Self {
            boot_id: state_dir::boot_id().step("boot id")?,
            own: ProcessId::own().step("supervisor")?,
            descriptor: descriptor.step("supervisor")?,
            hierarchies: Hierarchies::current().step("cgroup")?,
        })
    }

    /// The cgroup of a specification. Locates the hierarchies again if they have moved.
    fn cgroup(&self, path: &str, limits: Option<&LinuxResources>) -> Result<Cgroup, Failure> {
        Cgroup::in_hierarchies(&self.hierarchies, path, limits)
            .or_else(|_| Cgroup::specified(path, limits))
            .step("cgroup")
    }

    fn record(&self, state_dir: StateDir<'_>, cgroup: &Cgroup) -> Result<Record, Failure> {
        let record = Record {
            boot_id: self.boot_id.clone(),
            supervisor: self.own,
            container: None,
            cgroup: cgroup.clone(),
            user: None,
        };
        state_dir
            .write("supervisor.json", &record)
            .step("state_dir directory")?;
        Ok(record)
    }
}

struct Supervisor<'a> {
    state_dir: StateDir<'a>,
    record: Record,
    pid: i32,
    process: OwnedFd,
    outputs: Outputs,
    exit: File,
    /// The pipe in which the container's init, if it has one, reports the end of its program.
    program_end: Option<OwnedFd>,
}

impl<'a> Supervisor<'a> {
    fn start(state_dir: StateDir<'a>, facts: &HostFacts) -> Result<Self, Failure> {
        let launch = Launch::read(state_dir)?
            .ok_or("there is no launch.json")
            .step("state_dir directory")?;
        let linux = launch.spec.linux().as_ref();
        let path = linux
            .and_then(|linux| linux.cgroups_path().as_ref())
            .and_then(|path| path.to_str())
            .ok_or("linux.cgroupsPath is missing")
            .step("specification")?;
        let limits = linux.and_then(|linux| linux.resources().as_ref());
        let cgroup = facts.cgroup(path, limits)?;
        // Recorded before it exists, so that the agent can clean up after a crash.
        let record = facts.record(state_dir, &cgroup)?;
        // A cgroup in use belongs to somebody else and must not be removed.
        let is_created = std::cell::Cell::new(false);
        let create = || {
            cgroup.create(path, limits).step("cgroup")?;
            is_created.set(true);
            // A container that lost one process to the OOM killer should be restarted as a whole.
            cgroup.enable_oom_group().step("cgroup")
        };
        let started = Self::start_in(state_dir, &launch, &cgroup, &create, record);
        if started.is_err() {
            clean_up(state_dir, is_created.get().then_some(&cgroup));
        }
        started
    }

    fn start_in(
        state_dir: StateDir<'a>,
        launch: &Launch,
        cgroup: &Cgroup,
        create_cgroup: &dyn Fn() -> Result<(), Failure>,
        mut record: Record,
    ) -> Result<Self, Failure> {
        let time = CgroupTiming::of(cgroup, false);
        if time == CgroupTiming::Before {
            create_cgroup()?;
        }
        rootfs::prepare(state_dir.0, &launch.rootfs)?;
        let namespace = UserNamespace::prepare(&launch.spec)?;
        let (stdout, stdout_inside) = pipe()?;
        let (stderr, stderr_inside) = pipe()?;
        let mut options = StartOptions::supervised(Stdio::Outputs {
            stdout: stdout_inside,
            stderr: stderr_inside,
        });
        let mut program_end = None;
        if launch.init {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step("pipes")?;
            program_end = Some(read);
            options.init = Some(write);
        }
        let namespace = namespace.as_ref();
        let start = ContainerStart::spawn(
            launch.parts(),
            cgroup,
            namespace,
            options,
            START_TIMEOUT,
            time,
            // This process has run from a read-only mount since it began.
            None,
        )?;
        let mut drive = || {
            if time != CgroupTiming::Before {
                create_cgroup()?;
            }
            drive(&start, state_dir, launch, cgroup, &mut record)
        };
        let exit = drive().inspect_err(|_| start.abort())?;
        Ok(Self {
            state_dir,
            record,
            pid: start.pid,
            outputs: Outputs::new([stdout, stderr], state_dir.0, launch.logs).step("log files")?,
            process: start.process,
            exit,
            program_end,
        })
    }

    /// A caller that exited finds the container by its state directory.
    fn report_started(&self, caller: Channel, facts: HostFacts) {
        let report = Report::Started { pid: self.pid };
        let both = [facts.descriptor.as_fd(), self.process.as_fd()];
        caller.send_with(&report, &both).ok();
    }

    /// Waits for the container's exit. The lock is released when this process exits.
    fn supervise(mut self, _lock: &OwnedFd) {
        // After the start has been reported, so as not to delay it.
        let mut server = AttachServer::bind(self.state_dir.0).ok();
        release_memory();
        while !self.poll_once(&mut server) {}
        let status = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
        // A pid namespace ends with its init process, so all output is in the pipes by now.
        self.outputs
            .take(LAST_ROUNDS, &mut broadcast_to(&mut server));
        let stats = self.record.cgroup.stats().ok();
        let peak = stats.as_ref().map(|stats| stats.memory_peak);
        let status = status.ok().flatten();
        let of_first_process = ProgramEnd {
            code: status.as_ref().and_then(|status| status.exit_status()),
            signal: status
                .as_ref()
                .and_then(|status| status.terminating_signal()),
        };
        let of_program = self.program_end.as_ref().and_then(ProgramEnd::read);
        let ProgramEnd { code, signal } = of_program.unwrap_or(of_first_process);
        let exit = Exit {
            code,
            signal,
            oom_killed: stats.is_some_and(|stats| stats.oom_kills > 0),
            memory_peak: peak.filter(|peak| *peak > 0),
            at_ms: now_ms(),
        };
        drop(self.record.cgroup.destroy());
        drop(self.state_dir.write_exit(&self.exit, &exit));
        if let Some(server) = server {
            server.close(&self.process);
        }
        drop(self.state_dir.remove(attach::NAME));
    }

    /// Handles output and attach clients. Returns true once the container has exited.
    fn poll_once(&mut self, server: &mut Option<AttachServer>) -> bool {
        let outputs = self.outputs.descriptors();
        let output_count = outputs.len();
        let mut wanted: Vec<_> = std::iter::once(self.process.as_fd())
            .chain(outputs)
            .chain(server.iter().flat_map(AttachServer::descriptors))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        if poll(&mut wanted, None).is_err() {
            return false;
        }
        let ready: Vec<_> = wanted.iter().map(|fd| !fd.revents().is_empty()).collect();
        let has_ended = ready[0];
        let (output_ready, server_ready) = ready[1..].split_at(output_count);
        if output_ready.contains(&true) {
            self.outputs.take(FAIR_ROUNDS, &mut broadcast_to(server));
        }
        // After the output: a client that connects now receives what is written from now on.
        if let Some(server) = server {
            server.serve(server_ready, &self.process);
        }
        has_ended
    }
}

fn broadcast_to(server: &mut Option<AttachServer>) -> impl FnMut(Source, &[u8]) {
    move |source, chunk| {
        if let Some(server) = server {
            server.broadcast(source, chunk);
        }
    }
}

/// Drives a container through its set-up until its program is executed. Returns the reserved file for its exit status.
fn drive(
    start: &ContainerStart,
    state_dir: StateDir<'_>,
    launch: &Launch,
    cgroup: &Cgroup,
    record: &mut Record,
) -> Result<File, Failure> {
    start.signal_cgroup_ready();
    let exit = state_dir.reserve_exit().step("state_dir directory")?;
    let container = ProcessId::of(start.pid).step("container")?;
    start.wait_for_devices(cgroup, &launch.spec, false, &|_| Ok(()))?;
    let user = start.wait_until_ready()?;
    record.container = Some(container);
    record.user = Some(user);
    state_dir
        .write_again("supervisor.json", record)
        .step("state_dir directory")?;
    start.proceed();
    start.wait_until_executed(&|_| {
        let message = "there is no agent to answer: only bundles can have a listenerPath";
        Err(Failure::new("seccomp notification", message))
    })?;
    Ok(exit)
}

/// Cleans up after a failed start, except for `launch.json`.
fn clean_up(state_dir: StateDir<'_>, cgroup: Option<&Cgroup>) {
    drop(cgroup.map(Cgroup::destroy));
    for name in ["supervisor.json", "exit.json.tmp"] {
        drop(state_dir.remove(name));
    }
}

/// A pipe for an output. Its holder may open it again, as `/dev/stdout`: a program that began as root, too.
fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step("pipes")?;
    rustix::fs::fchmod(&write, Mode::from_raw_mode(OUTPUT_MODE)).step("pipes")?;
    Ok((read, write))
}

/// Removes the files of an earlier start. The caller holds the lock.
pub(crate) fn clear(state_dir: StateDir<'_>) -> Result<(), state_dir::Error> {
    for name in [
        "exit.json",
        "supervisor.json",
        "exit.json.tmp",
        attach::NAME,
    ] {
        state_dir.remove(name)?;
    }
    drop(fs::remove_file(state_dir.path("supervisor.json.tmp")));
    Ok(())
}
