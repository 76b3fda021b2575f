//! `tucano_oci exec-in`: one more process in a running container, under all of its restrictions.

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
    channel::{Channel, Failure, FromContainer, Report, Step},
    container::{
        self,
        inside::Root,
        kernel,
        labels::Labels,
        manner::{Manner, Stdio, copies, own_streams},
        namespaces::lists,
        process::{Plan, filters},
        process_of, scheduling, terminal,
        user::User,
        userns::UserNamespace,
    },
    home::{Home, ProcessId, Record},
    launch::Launch,
    notification,
    sys::{self, Cloned},
};

/// What to run, and how.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container's home directory.
    pub home: &'a Path,
    /// Program and arguments.
    pub command: &'a [String],
    /// After which it is killed; never without.
    pub timeout: Option<Duration>,
    /// Whether its output is discarded, and the outcome told as one line of JSON on stdout.
    pub report: bool,
}

/// Runs it; gives its exit code (124 where it did not end in time), or why it could not be run.
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
        let host = Host::open(self.home)?;
        let process = process_of(&host.launch.spec)?.clone();
        let stdio = Stdio::Given(self.stdio().step("stdio")?);
        host.start(&process, stdio, self.command)?
            .wait(self.timeout)
    }

    fn stdio(&self) -> std::io::Result<[OwnedFd; 3]> {
        if self.report {
            let null = || File::options().read(true).write(true).open("/dev/null");
            return Ok([null()?.into(), null()?.into(), null()?.into()]);
        }
        own_streams()
    }
}

/// A supervised container that runs.
pub(crate) struct Host {
    pub(crate) launch: Launch,
    cgroup: Cgroup,
    user: User,
    container: ProcessId,
    target: OwnedFd,
}

impl Host {
    /// The one of this home directory.
    pub(crate) fn open(home: &Path) -> Result<Self, Failure> {
        let home = Home(home);
        let gone = || Failure::new("container", "it does not run");
        let launch: Launch = home
            .read("launch.json")
            .step("home directory")?
            .ok_or_else(gone)?;
        let record: Record = home
            .read("supervisor.json")
            .step("home directory")?
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

    /// Starts a command in it, by its own user; `process` is what it is, but for its arguments.
    pub(crate) fn start(
        self,
        process: &Process,
        stdio: Stdio,
        command: &[String],
    ) -> Result<Child, Failure> {
        let guest = Guest {
            manner: Manner::supervised(stdio),
            spec: &self.launch.spec,
            process,
            user: Some(self.user),
            namespace: UserNamespace::of(&self.launch.spec, self.container.pid)?,
            target: self.target,
            command,
        };
        guest.start(&self.cgroup)
    }
}

/// The process that joins the container.
pub(crate) struct Guest<'a> {
    pub(crate) manner: Manner,
    pub(crate) spec: &'a Spec,
    /// What it is, but for its arguments.
    pub(crate) process: &'a Process,
    /// Who it is; the process's user where absent.
    pub(crate) user: Option<User>,
    pub(crate) namespace: Option<UserNamespace>,
    /// The container's first process.
    pub(crate) target: OwnedFd,
    pub(crate) command: &'a [String],
}

impl Guest<'_> {
    /// Starts it; when this returns, its program has been executed.
    pub(crate) fn start(self, cgroup: &Cgroup) -> Result<Child, Failure> {
        // Joined by the children of this process only: none of the container's sees this one.
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
                let failure = self.become_it(&there);
                drop(there.send(&FromContainer::Failed(failure)));
                std::process::exit(1)
            }
            Cloned::Parent(pid, process) => {
                drop(there);
                let child = Child { pid, process };
                let listener = |number| {
                    let mut state = self.manner.state.clone();
                    state.set_pid(Some(pid));
                    notification::hand_over(self.spec, &state, &child.process, number)
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

    fn become_it(self, channel: &Channel) -> Failure {
        match self.plan(channel) {
            Ok(plan) => plan.run(),
            Err(failure) => failure,
        }
    }

    fn plan<'a>(&'a self, channel: &'a Channel) -> Result<Plan<'a>, Failure> {
        // Here /proc is the host's still.
        let labels = Labels::open(self.process, self.spec, self.manner.own_keyring)?;
        let (user, stdio) = self.prepare(channel)?;
        Ok(Plan {
            spec: self.spec,
            process: self.process,
            arguments: self.command,
            user,
            namespace: self.namespace.as_ref(),
            filters: filters(self.spec)?,
            labels,
            stdio,
            channel,
            manner: &self.manner,
        })
    }

    fn prepare(&self, channel: &Channel) -> Result<(User, [OwnedFd; 3]), Failure> {
        container::isolate()?;
        channel.wait_to_go().step("supervisor")?;
        // Through the host's /proc: what the container shows as its own could be anything.
        kernel::set_oom_score(self.process)?;
        let affinity = self.process.exec_cpu_affinity().as_ref();
        if let Some(cpus) = affinity.and_then(|all| all.cpu_affinity_final().as_deref()) {
            scheduling::pin(cpus)?;
        }
        self.join()?;
        let root = Root(File::open("/").step("root file system")?.into());
        let user = match &self.user {
            Some(user) => user.clone(),
            None => User::find(&root, None, self.process).step("user")?,
        };
        let stdio = match &self.manner.stdio {
            Stdio::Given(streams) => copies(streams).step("stdio")?,
            Stdio::Terminal { console } => {
                let size = self.process.console_size();
                let pair = || terminal::pair(&root, size);
                // The container's root owns it, as it owns those that are made inside.
                let own = self.namespace.as_ref().map(|namespace| &namespace.ids);
                own.map_or_else(pair, |ids| ids.as_root(pair))?
                    .hand_over(console)?
            }
            Stdio::Outputs { .. } => return Err(Failure::new("stdio", "a stream is missing")),
        };
        Ok((user, stdio))
    }

    /// All at once; with the mount namespace, the container's root becomes this process's.
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

/// It runs.
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
        channel.go().step("container")?;
        match channel.receive().step("container")? {
            Some(FromContainer::Ready(_)) => {}
            Some(FromContainer::Failed(failure)) => return Err(failure),
            _ => return Err(Failure::new("container", "it ended meanwhile")),
        }
        channel.go().step("container")?;
        loop {
            match channel.receive().step("container")? {
                Some(FromContainer::Failed(failure)) => return Err(failure),
                Some(FromContainer::Listener(number)) => {
                    listener(number)?;
                    channel.go().step("container")?;
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

    /// With its process group, which is of its session and cannot be another's before it is reaped.
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
