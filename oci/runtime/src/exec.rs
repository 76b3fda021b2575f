//! `tucano_oci exec-in`: runs another process in a container, with the container's restrictions.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid},
    thread::ThreadNameSpaceType,
    time::Timespec,
};

use crate::{
    cgroup::Cgroup,
    channel::{Channel, Failure, Report, Step},
    container::{
        self, kernel,
        labels::Labels,
        message::FromContainer,
        namespaces::lists,
        process::{ExecPlan, filters},
        process_of,
        resolve::Root,
        scheduling,
        start_options::{StartOptions, Stdio, duplicate, duplicate_stdio},
        terminal,
        user::User,
        userns::UserNamespace,
    },
    launch::Launch,
    notification,
    record::Record,
    state_dir::{ProcessId, StateDir},
    sys::{self, Cloned},
};

/// An `exec` and its options.
#[derive(Debug)]
pub struct Exec<'a> {
    /// State directory of the container.
    pub state_dir: &'a Path,
    /// Program and arguments.
    pub command: &'a [String],
    /// Time limit, after which the command is killed; none means unlimited.
    pub timeout: Option<Duration>,
    /// Discard the output and print the outcome as one line of JSON.
    pub report: bool,
}

/// Runs the command. Returns its exit code (124 after the time limit) or the reason why it could not run.
pub fn run(exec: &Exec) -> Result<i32, String> {
    crate::exe::protect().map_err(|error| error.to_string())?;
    let outcome = exec.run().unwrap_or_else(Report::Failed);
    if exec.report {
        let line = serde_json::to_string(&outcome).map_err(|error| error.to_string())?;
        println!("{line}");
    }
    match outcome {
        Report::Ended { code } => Ok(code),
        Report::TimedOut => Ok(124),
        Report::Failed(_) if exec.report => Ok(125),
        Report::Failed(failure) => Err(failure.to_string()),
        Report::Started { .. } => Ok(0),
    }
}

impl Exec<'_> {
    fn run(&self) -> Result<Report, Failure> {
        let host = TargetContainer::open(self.state_dir)?;
        let process = process_of(&host.launch.spec)?.clone();
        let stdio = Stdio::Streams(self.stdio().step("stdio")?);
        host.start(&process, stdio, self.command)?
            .wait(self.timeout)
    }

    fn stdio(&self) -> std::io::Result<[OwnedFd; 3]> {
        if self.report {
            let null = || File::options().read(true).write(true).open("/dev/null");
            return Ok([null()?.into(), null()?.into(), null()?.into()]);
        }
        duplicate_stdio()
    }
}

/// A running supervised container.
pub(crate) struct TargetContainer {
    pub(crate) launch: Launch,
    cgroup: Cgroup,
    user: User,
    container: ProcessId,
    target: OwnedFd,
}

impl TargetContainer {
    /// Opens the container of a state directory.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, Failure> {
        let state_dir = StateDir(state_dir);
        let gone = || Failure::new("container", "it does not run");
        let launch = Launch::read(state_dir)?.ok_or_else(gone)?;
        let record: Record = state_dir
            .read("supervisor.json")
            .step("state_dir directory")?
            .ok_or_else(gone)?;
        let (Some(container), Some(user)) = (record.container, record.user) else {
            return Err(gone());
        };
        let target = container.open().step("container")?.ok_or_else(gone)?;
        Ok(Self {
            launch,
            cgroup: record.cgroup,
            user,
            container,
            target,
        })
    }

    /// Starts a command as the container's user. `process` provides everything but the arguments.
    pub(crate) fn start(
        self,
        process: &Process,
        stdio: Stdio,
        command: &[String],
    ) -> Result<Child, Failure> {
        let process_to_join = ExecProcess {
            options: StartOptions {
                // In a Landlock domain of its own it could not look into the container's program, as people do who
                // look for a fault (`/proc/1/root`). That program cannot look into this one, either way.
                landlock: false,
                ..StartOptions::supervised(stdio)
            },
            spec: &self.launch.spec,
            process,
            user: Some(self.user),
            namespace: UserNamespace::of(&self.launch.spec, self.container.pid)?,
            target: self.target,
            command,
        };
        process_to_join.start(&self.cgroup)
    }
}

/// A process that joins a container.
pub(crate) struct ExecProcess<'a> {
    pub(crate) options: StartOptions,
    pub(crate) spec: &'a Spec,
    /// Process object; `command` replaces its arguments.
    pub(crate) process: &'a Process,
    /// User; the process object's if absent.
    pub(crate) user: Option<User>,
    pub(crate) namespace: Option<UserNamespace>,
    /// Pidfd of the container's init process.
    pub(crate) target: OwnedFd,
    pub(crate) command: &'a [String],
}

impl ExecProcess<'_> {
    /// Starts the process. Its program has been executed when this returns.
    pub(crate) fn start(self, cgroup: &Cgroup) -> Result<Child, Failure> {
        // Applies to children of this process only, so that the container never sees this process.
        rustix::thread::move_into_thread_name_spaces(
            self.target.as_fd(),
            ThreadNameSpaceType::PROCESS_ID,
        )
        .step("pid namespace")?;
        let (here, there) = Channel::pair().step("channel")?;
        let affinity = self.process.exec_cpu_affinity().as_ref();
        if let Some(cpus) = affinity.and_then(|all| all.initial().as_deref()) {
            scheduling::pin(cpus)?;
        }
        match sys::clone_process(CloneFlags::empty()).step("fork")? {
            Cloned::Child => {
                drop(here);
                let failure = self.run_program(&there);
                drop(there.send(&FromContainer::Failed(failure)));
                std::process::exit(1)
            }
            Cloned::Parent(pid, process) => {
                drop(there);
                let child = Child { pid, process };
                let listener = |number| {
                    let mut state = self.options.state.clone();
                    state.set_pid(Some(pid));
                    notification::send_listener(self.spec, &state, &child.process, number)
                };
                let started = cgroup
                    .add(pid)
                    .step("cgroup")
                    .and_then(|()| child.start(&here, &listener));
                if let Err(failure) = started {
                    child.kill();
                    child.reap().step("waiting")?;
                    return Err(failure);
                }
                Ok(child)
            }
        }
    }

    fn run_program(self, channel: &Channel) -> Failure {
        match self.plan(channel) {
            Ok(plan) => plan.run(),
            Err(failure) => failure,
        }
    }

    fn plan<'a>(&'a self, channel: &'a Channel) -> Result<ExecPlan<'a>, Failure> {
        // /proc is still the host's here.
        let labels = Labels::open(self.process, self.spec, self.options.own_keyring)?;
        let (user, stdio) = self.prepare(channel)?;
        Ok(ExecPlan {
            spec: self.spec,
            process: self.process,
            arguments: self.command,
            user,
            namespace: self.namespace.as_ref(),
            filters: filters(self.spec)?,
            labels,
            stdio,
            channel,
            options: &self.options,
        })
    }

    fn prepare(&self, channel: &Channel) -> Result<(User, [OwnedFd; 3]), Failure> {
        container::isolate()?;
        channel.wait_for_proceed().step("supervisor")?;
        // Through the host's /proc: the container's could be anything.
        kernel::set_oom_score(self.process)?;
        let affinity = self.process.exec_cpu_affinity().as_ref();
        if affinity.is_none() && self.options.reset_affinity {
            scheduling::reset_affinity();
        }
        if let Some(cpus) = affinity.and_then(|all| all.cpu_affinity_final().as_deref()) {
            scheduling::pin(cpus)?;
        }
        self.join()?;
        let root = Root(File::open("/").step("root file system")?.into());
        let user = match &self.user {
            Some(user) => user.clone(),
            None => User::find(&root, None, self.process).step("user")?,
        };
        let stdio = match &self.options.stdio {
            Stdio::Streams(streams) => duplicate(streams).step("stdio")?,
            Stdio::Terminal { console, relayed } => {
                let size = self.process.console_size();
                let pair = || terminal::pair(&root, size);
                // Owned by the container's root, like terminals that are opened inside.
                let own = self.namespace.as_ref().map(|namespace| &namespace.ids);
                own.map_or_else(pair, |ids| ids.as_root(pair))?
                    .hand_over(console, *relayed)?
            }
            Stdio::Outputs { .. } => return Err(Failure::new("stdio", "a stream is missing")),
        };
        Ok((user, stdio))
    }

    /// Joins the namespaces at once. The mount namespace brings the container's root.
    fn join(&self) -> Result<(), Failure> {
        use oci_spec::runtime::LinuxNamespaceType as Kind;
        let kinds = [
            (Kind::Mount, ThreadNameSpaceType::MOUNT),
            (Kind::Cgroup, ThreadNameSpaceType::CONTROL_GROUP),
            (
                Kind::Uts,
                ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            ),
            (Kind::Ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
            (Kind::Network, ThreadNameSpaceType::NETWORK),
            (Kind::Time, ThreadNameSpaceType::TIME),
        ];
        let wanted = kinds
            .into_iter()
            .filter(|(kind, _)| lists(self.spec, *kind))
            .fold(ThreadNameSpaceType::empty(), |all, (_, flag)| all | flag);
        rustix::thread::move_into_thread_name_spaces(self.target.as_fd(), wanted)
            .step("joining the container")
    }
}

/// A running process of an `exec`.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) process: OwnedFd,
}

impl Child {
    fn start(
        &self,
        channel: &Channel,
        listener: &dyn Fn(i32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        channel.proceed().step("container")?;
        match channel.receive().step("container")? {
            Some(FromContainer::Ready(_)) => {}
            Some(FromContainer::Failed(failure)) => return Err(failure),
            _ => return Err(Failure::new("container", "it ended meanwhile")),
        }
        channel.proceed().step("container")?;
        loop {
            match channel.receive().step("container")? {
                Some(FromContainer::Failed(failure)) => return Err(failure),
                Some(FromContainer::Listener(number)) => {
                    listener(number)?;
                    channel.proceed().step("container")?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Report, Failure> {
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or_default());
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        let in_time = loop {
            match poll(&mut ended, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.step("waiting")? > 0,
            }
        };
        if !in_time {
            self.kill();
        }
        let code = self.reap().step("waiting")?;
        Ok(if in_time {
            Report::Ended { code }
        } else {
            Report::TimedOut
        })
    }

    /// Kills the process and its process group. The group belongs to its session and cannot be reused before the
    /// process is reaped.
    pub(crate) fn kill(&self) {
        if let Some(group) = Pid::from_raw(self.pid) {
            kill_process_group(group, Signal::KILL).ok();
        }
        pidfd_send_signal(&self.process, Signal::KILL).ok();
    }

    pub(crate) fn reap(&self) -> rustix::io::Result<i32> {
        let status = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED)?;
        Ok(status.map_or(0, |status| {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            status.exit_status().or(signal).unwrap_or_default()
        }))
    }
}
