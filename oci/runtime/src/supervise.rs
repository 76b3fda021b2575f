//! The supervisor: starts one container, keeps its output, waits for its end and writes down how it ended.
//!
//! ```text
//! caller ── tucano_oci supervise ──fork──> supervisor (own session) ──clone3──> container
//!              │ ends at once                  │ is told of a home directory       └─ dies with the supervisor
//!              └─ reaped by the caller         │ answers: started | failed
//!                                              └─ later reaped by init
//! ```
//!
//! It is single-threaded, knows no async, and holds nothing but two pipes, a pidfd, the lock of the home directory, and a door for
//! a few guests ([`crate::attach`]).

use std::{
    fs::{self, File},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    sched::CloneFlags,
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use oci_spec::runtime::LinuxResources;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid},
};

use crate::{
    attach::{self, Door},
    birth::{Birth, CgroupTime},
    cgroup::{Cgroup, Hierarchies},
    channel::{Channel, Failure, Order, Report, Step},
    container::{
        manner::{Manner, Stdio},
        rootfs,
        userns::UserNamespace,
    },
    exe,
    home::{self, Home, ProcessId, Record},
    launch::{Exit, Launch, LogLimits},
    logs::{Source, Stream},
    sys::{self, Cloned},
    title::Title,
};

/// How long a container may take to come up: milliseconds are usual; a mount that hangs must not hang its starter.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Chunks taken from one stream before the other has its turn.
const FAIR_ROUNDS: usize = 64;

/// Most chunks taken when the container is gone: more than a pipe can hold (`/proc/sys/fs/pipe-max-size`, 1 MiB).
const LAST_ROUNDS: usize = 1024;

/// `tucano_oci supervise`: leaves the caller, waits to be told over stdin (a [`Channel`]) of a home directory, and supervises its
/// container. Ends if the caller does before that.
pub fn run() -> Result<(), String> {
    sys::close_from(3).map_err(|error| format!("closing descriptors: {error}"))?;
    crate::exe::protect().map_err(|error| error.to_string())?;
    match sys::clone_process(CloneFlags::empty()) {
        Ok(Cloned::Parent(..)) => return Ok(()),
        Ok(Cloned::Child) => {}
        Err(error) => return Err(format!("forking: {error}")),
    }
    let title = Title::find();
    let caller = leave_caller().map_err(|failure| failure.to_string())?;
    let known = Known::before();
    let told = caller.receive_with::<Order>();
    let Some((Order { home }, given)) = told.map_err(|error| format!("order: {error}"))? else {
        return Ok(());
    };
    let [lock] = <[_; 1]>::try_from(given).map_err(|_| "order: without the lock")?;
    if let Some(title) = title {
        title.set(&home);
    }
    let start = |known: Known| Ok((Supervisor::start(Home(&home), &known)?, known));
    match known.and_then(start) {
        Ok((supervisor, known)) => {
            supervisor.tell(caller, known);
            supervisor.supervise(&lock);
        }
        // A caller that died meanwhile hears nothing, and will find that nothing runs.
        Err(failure) => drop(caller.send(&Report::Failed(failure))),
    }
    Ok(())
}

/// Nothing of the caller's stays: not its session, directory, umask or descriptors, but for the socket that it speaks over.
fn leave_caller() -> Result<Channel, Failure> {
    const STEP: &str = "leaving the caller";
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

/// There is one of these for each container: starting it took most of the memory that this process has, and waiting takes little.
fn become_small() {
    sys::release_memory(&exe::as_in_file());
}

/// What can be found out before there is a container.
struct Known {
    boot_id: String,
    own: ProcessId,
    /// For the caller.
    descriptor: OwnedFd,
    hierarchies: Hierarchies,
}

impl Known {
    fn before() -> Result<Self, Failure> {
        let descriptor = pidfd_open(getpid(), PidfdFlags::empty());
        Ok(Self {
            boot_id: home::boot_id().step("boot id")?,
            own: ProcessId::own().step("supervisor")?,
            descriptor: descriptor.step("supervisor")?,
            hierarchies: Hierarchies::here().step("cgroup")?,
        })
    }

    /// The cgroup of a specification. Hierarchies that are not where they were are looked for again.
    fn cgroup(&self, path: &str, limits: Option<&LinuxResources>) -> Result<Cgroup, Failure> {
        Cgroup::among(&self.hierarchies, path, limits)
            .or_else(|_| Cgroup::specified(path, limits))
            .step("cgroup")
    }

    fn record(&self, home: Home<'_>, cgroup: &Cgroup) -> Result<Record, Failure> {
        let record = Record {
            boot_id: self.boot_id.clone(),
            supervisor: self.own,
            container: None,
            cgroup: cgroup.clone(),
            user: None,
        };
        home.write("supervisor.json", &record)
            .step("home directory")?;
        Ok(record)
    }
}

struct Supervisor<'a> {
    home: Home<'a>,
    record: Record,
    pid: i32,
    process: OwnedFd,
    streams: Vec<Stream>,
    exit: File,
}

impl<'a> Supervisor<'a> {
    fn start(home: Home<'a>, known: &Known) -> Result<Self, Failure> {
        let launch: Launch = home
            .read("launch.json")
            .step("home directory")?
            .ok_or("there is no launch.json")
            .step("home directory")?;
        let linux = launch.spec.linux().as_ref();
        let path = linux
            .and_then(|linux| linux.cgroups_path().as_ref())
            .and_then(|path| path.to_str())
            .ok_or("linux.cgroupsPath is missing")
            .step("specification")?;
        let limits = linux.and_then(|linux| linux.resources().as_ref());
        let cgroup = known.cgroup(path, limits)?;
        // Recorded before it exists: whoever finds a dead supervisor can clean up.
        let record = known.record(home, &cgroup)?;
        // One that is in use is somebody else's, and must not be cleaned up for the failure.
        let is_made = std::cell::Cell::new(false);
        let make = || {
            cgroup.create(path, limits).step("cgroup")?;
            is_made.set(true);
            // Half a service is worse than one that is started anew.
            cgroup.end_as_one().step("cgroup")
        };
        let started = Self::start_in(home, &launch, &cgroup, &make, record);
        if started.is_err() {
            forget(home, is_made.get().then_some(&cgroup));
        }
        started
    }

    fn start_in(
        home: Home<'a>,
        launch: &Launch,
        cgroup: &Cgroup,
        make_cgroup: &dyn Fn() -> Result<(), Failure>,
        mut record: Record,
    ) -> Result<Self, Failure> {
        let time = CgroupTime::of(cgroup, false);
        if time == CgroupTime::Before {
            make_cgroup()?;
        }
        rootfs::prepare(home.0, &launch.rootfs)?;
        let namespace = UserNamespace::prepare(&launch.spec)?;
        let (stdout, stdout_inside) = pipe()?;
        let (stderr, stderr_inside) = pipe()?;
        let manner = Manner::supervised(Stdio::Outputs {
            stdout: stdout_inside,
            stderr: stderr_inside,
        });
        let namespace = namespace.as_ref();
        let birth = Birth::give(
            launch.parts(),
            cgroup,
            namespace,
            manner,
            START_PATIENCE,
            time,
            // This process has run its program from such a mount since it began.
            None,
        )?;
        let mut come_up = || {
            if time != CgroupTime::Before {
                make_cgroup()?;
            }
            come_up(&birth, home, launch, cgroup, &mut record)
        };
        let exit = come_up().inspect_err(|_| birth.abort())?;
        Ok(Self {
            home,
            record,
            pid: birth.pid,
            streams: streams([stdout, stderr], home, launch.logs)?,
            process: birth.process,
            exit,
        })
    }

    /// A caller that died meanwhile hears nothing, and finds the container by its home directory.
    fn tell(&self, caller: Channel, known: Known) {
        let report = Report::Started { pid: self.pid };
        let both = [known.descriptor.as_fd(), self.process.as_fd()];
        caller.send_with(&report, &both).ok();
    }

    /// Until the container's end. The lock is given back by ending.
    fn supervise(mut self, _lock: &OwnedFd) {
        // Not before the start is reported, which nobody shall wait for.
        let mut door = Door::open(self.home.0).ok();
        become_small();
        while !self.wait_for_something(&mut door) {}
        let status = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
        // When the first process of a pid namespace has ended, so have all others: what they wrote is in the pipes.
        for stream in &mut self.streams {
            stream.take(LAST_ROUNDS, &mut shown_at(&mut door));
        }
        let oom_killed = self
            .record
            .cgroup
            .stats()
            .is_ok_and(|stats| stats.oom_kills > 0);
        let status = status.ok().flatten();
        let exit = Exit {
            code: status.as_ref().and_then(|status| status.exit_status()),
            signal: status
                .as_ref()
                .and_then(|status| status.terminating_signal()),
            oom_killed,
            at_ms: now_ms(),
        };
        drop(self.record.cgroup.destroy());
        drop(self.home.write_exit(&self.exit, &exit));
        if let Some(door) = door {
            door.close(&self.process);
        }
        drop(self.home.remove(attach::NAME));
    }

    /// Takes output, and serves guests; true once the container has ended.
    fn wait_for_something(&mut self, door: &mut Option<Door>) -> bool {
        let mut wanted: Vec<_> = std::iter::once(PollFd::new(&self.process, PollFlags::IN))
            .chain(
                self.streams
                    .iter()
                    .map(|stream| PollFd::new(stream, PollFlags::IN)),
            )
            .chain(
                door.iter()
                    .flat_map(Door::descriptors)
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            )
            .collect();
        if poll(&mut wanted, None).is_err() {
            return false;
        }
        let ended = !wanted[0].revents().is_empty();
        let ready: Vec<_> = wanted[1..]
            .iter()
            .map(|fd| !fd.revents().is_empty())
            .collect();
        let (of_streams, of_door) = ready.split_at(self.streams.len());
        let mut of_streams = of_streams.iter();
        self.streams.retain_mut(|stream| {
            !of_streams.next().unwrap_or(&false) || stream.take(FAIR_ROUNDS, &mut shown_at(door))
        });
        // Behind the output: who comes in now sees what is written from now on.
        if let Some(door) = door {
            door.serve(of_door, &self.process);
        }
        ended
    }
}

fn shown_at(door: &mut Option<Door>) -> impl FnMut(Source, &[u8]) {
    move |source, chunk| {
        if let Some(door) = door {
            door.show(source, chunk);
        }
    }
}

/// Has a container-to-be go through its steps until its program is executed; gives the space for its exit, too.
fn come_up(
    birth: &Birth,
    home: Home<'_>,
    launch: &Launch,
    cgroup: &Cgroup,
    record: &mut Record,
) -> Result<File, Failure> {
    birth.tell_of_cgroup();
    let exit = home.reserve_exit().step("home directory")?;
    let container = ProcessId::of(birth.pid).step("container")?;
    birth.wait_until_equipped(cgroup, &launch.spec, &|_| Ok(()))?;
    let user = birth.wait_until_ready()?;
    record.container = Some(container);
    record.user = Some(user);
    home.write_again("supervisor.json", record)
        .step("home directory")?;
    birth.go_on();
    birth.wait_until_executed(&|_| {
        let message = "nobody here answers: only bundles can have a listenerPath";
        Err(Failure::new("seccomp notification", message))
    })?;
    Ok(exit)
}

/// A start that failed leaves no trace but `launch.json`.
fn forget(home: Home<'_>, cgroup: Option<&Cgroup>) {
    drop(cgroup.map(Cgroup::destroy));
    for name in ["supervisor.json", "exit.json.tmp"] {
        drop(home.remove(name));
    }
}

/// A stream of the container for each of its two outputs.
fn streams(
    [stdout, stderr]: [OwnedFd; 2],
    home: Home<'_>,
    limits: LogLimits,
) -> Result<Vec<Stream>, Failure> {
    [
        (stdout, Source::Stdout, "stdout.log"),
        (stderr, Source::Stderr, "stderr.log"),
    ]
    .into_iter()
    .map(|(end, source, name)| Stream::new(end, source, home.path(name), limits).step(name))
    .collect()
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("pipes")
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Removes what an earlier start in the same home directory left, under its lock.
pub(crate) fn clear(home: Home<'_>) -> Result<(), home::Error> {
    for name in [
        "exit.json",
        "supervisor.json",
        "exit.json.tmp",
        attach::NAME,
    ] {
        home.remove(name)?;
    }
    drop(fs::remove_file(home.path("supervisor.json.tmp")));
    Ok(())
}
