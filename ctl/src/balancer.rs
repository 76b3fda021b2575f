//! Keeps `tucano_balancerd` running. It is a process of its own, in its own process group, and outlives a
//! controller that is killed; the next controller finds its lock taken and adopts it.
//!
//! ```text
//!           lock free                    lock taken by one with our arguments
//!   start ────────────► spawn ──► watch ◄────────────────────────────────────── start
//!                         ▲         │                                             │ other arguments
//!                         └─────────┘ ends (back-off)          SIGTERM, wait ◄────┘
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::config_mgr::Config;

/// Pause before it is started again: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// One that ran for this long did not fail at its start.
const STEADY: Duration = Duration::from_secs(10);
/// How long it may take to end before it is left alone (at our end) or killed (to be replaced): a little more than it
/// gives its requests to finish, so that one with a long tunnel still ends by itself.
const END: Duration = Duration::from_secs(12);
/// Pause between two looks at a balancer that is not our child.
const LOOK: Duration = Duration::from_millis(100);

/// Starts and watches the balancer.
#[derive(Debug)]
pub struct Supervisor {
    program: PathBuf,
    arguments: Vec<String>,
    lock: PathBuf,
}

/// A balancer that runs.
#[derive(Debug)]
struct Running {
    pid: Pid,
    process: OwnedFd,
}

/// Why the balancer cannot be started or watched.
#[derive(Debug, thiserror::Error)]
enum BalancerError {
    #[error("cannot start {}: {source}; install it beside tucano_ctld, or set balancer.program", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot use the lock {}: {source}", lock.display())]
    Lock { lock: PathBuf, source: io::Error },
    #[error("cannot watch process {pid}: {source}")]
    Watch { pid: i32, source: io::Error },
    #[error("the lock {} is held by somebody that is not a balancer of this data directory", .0.display())]
    Stranger(PathBuf),
}

impl Supervisor {
    /// For the balancer that this configuration describes; `None` if somebody else runs it.
    pub fn new(config: &Config) -> Option<Self> {
        if !config.balancer.spawn {
            return None;
        }
        let in_data_dir = |name: &str| config.data_dir.join(name).display().to_string();
        let lock = config.data_dir.join("balancer.lock");
        let mut arguments: Vec<String> = [
            ("--follow", in_data_dir("ctl.sock")),
            ("--lock", lock.display().to_string()),
            ("--routes", in_data_dir("routes.json")),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        for address in &config.balancer.listen {
            arguments.extend(["--listen".to_owned(), address.to_string()]);
        }
        arguments.extend(config.balancer.arguments.iter().cloned());
        Some(Self {
            program: config.balancer.program.clone().unwrap_or_else(beside_us),
            arguments,
            lock,
        })
    }

    /// Keeps it running until `stop`, and ends it then.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = BACKOFF.0;
        loop {
            let started = Instant::now();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = self.keep() => if let Err(error) = result {
                    tracing::error!(%error, "no balancer");
                },
            }
            if started.elapsed() > STEADY {
                pause = BACKOFF.0;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        if let Err(error) = self.end().await {
            tracing::error!(%error, "the balancer goes on without a controller");
        }
    }

    /// Adopts or starts one, and watches it until it ends.
    async fn keep(&self) -> Result<(), BalancerError> {
        if self.is_locked()? {
            return self.adopt().await;
        }
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A signal to our group, such as Ctrl-C at a terminal, is ours alone.
            .process_group(0)
            .spawn()
            .map_err(|source| BalancerError::Spawn {
                program: self.program.clone(),
                source,
            })?;
        tracing::info!(pid = child.id(), "started the balancer");
        match child.wait().await {
            Ok(status) => tracing::warn!(%status, "the balancer ended"),
            Err(error) => tracing::error!(%error, "cannot wait for the balancer"),
        }
        Ok(())
    }

    async fn adopt(&self) -> Result<(), BalancerError> {
        let Some((running, arguments)) = self.holder()? else {
            // It may be about to write its id, or to end.
            sleep(LOOK).await;
            return if self.is_locked()? {
                Err(BalancerError::Stranger(self.lock.clone()))
            } else {
                Ok(())
            };
        };
        let pid = running.pid.as_raw_nonzero();
        // A program given as a script has its interpreter's arguments before ours.
        if arguments.ends_with(&self.arguments) {
            tracing::info!(%pid, "adopted the balancer that runs already");
            running.ended().await;
            tracing::warn!(%pid, "the balancer ended");
        } else {
            tracing::info!(%pid, "replacing the balancer: its configuration has changed");
            running.end().await;
        }
        Ok(())
    }

    /// Ends whichever balancer has the lock.
    async fn end(&self) -> Result<(), BalancerError> {
        if !self.is_locked()? {
            return Ok(());
        }
        if let Some((running, _)) = self.holder()? {
            running.signal(Signal::TERM);
            if timeout(END, running.ended()).await.is_err() {
                tracing::warn!(
                    "the balancer still has requests under way; leaving it to end by itself"
                );
            }
        }
        Ok(())
    }

    fn is_locked(&self) -> Result<bool, BalancerError> {
        let failed = |source| BalancerError::Lock {
            lock: self.lock.clone(),
            source,
        };
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The process that holds the lock, with its arguments; `None` if the id in the file is not (or no more) one of a
    /// balancer with this lock.
    fn holder(&self) -> Result<Option<(Running, Vec<String>)>, BalancerError> {
        let text = fs::read_to_string(&self.lock).map_err(|source| BalancerError::Lock {
            lock: self.lock.clone(),
            source,
        })?;
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // First the handle: what is read of the process afterwards is of this one, or of none.
        let Some(running) = Running::open(pid)? else {
            return Ok(None);
        };
        let arguments = arguments_of(pid);
        let ours = self.lock.display().to_string();
        Ok(arguments.contains(&ours).then_some((running, arguments)))
    }
}

impl Running {
    fn open(pid: Pid) -> Result<Option<Self>, BalancerError> {
        let watch = |source| BalancerError::Watch {
            pid: pid.as_raw_nonzero().get(),
            source,
        };
        let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(watch(error.into())),
        };
        Ok(Some(Self { pid, process }))
    }

    /// Waits for its end. It is not our child: looking is all that can be done without `unsafe`.
    async fn ended(&self) {
        while !self.has_ended() {
            sleep(LOOK).await;
        }
    }

    fn has_ended(&self) -> bool {
        let mut end = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec::default();
        poll(&mut end, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.process, signal) {
            tracing::debug!(%error, "the balancer has ended already");
        }
    }

    /// Ends it, by force if it takes too long.
    async fn end(&self) {
        self.signal(Signal::TERM);
        if timeout(END, self.ended()).await.is_err() {
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }
}

/// Arguments of a process, without its program; empty when it is gone.
fn arguments_of(pid: Pid) -> Vec<String> {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let bytes = fs::read(path).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .skip(1)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The balancer that was installed with this controller.
fn beside_us() -> PathBuf {
    let us = std::env::current_exe().unwrap_or_default();
    us.parent()
        .unwrap_or(Path::new(""))
        .join("tucano_balancerd")
}
