//! Supervises `tucano_balancerd`, a process in its own process group. It survives a controller that is
//! killed; the next controller finds its lock taken and adopts it.
//!
//! ```text
//!           lock free                   lock held by a balancer with the same arguments
//!   start ────────────► spawn ──► watch ◄────────────────────────────────────── start
//!                         ▲         │                                             │ other arguments
//!                         └─────────┘ exit or drain        SIGTERM, lock free ◄───┘
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

/// Pause before a restart: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A balancer that ran for this long resets the back-off.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a balancer may take to exit before it is left alone (when the controller stops) or killed (when it is
/// replaced). Slightly more than the balancer's own drain timeout.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// Interval at which a balancer that is not a child process is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Starts and watches the balancer.
#[derive(Debug)]
pub struct Supervisor {
    program: PathBuf,
    arguments: Vec<String>,
    lock: PathBuf,
}

/// A running balancer.
#[derive(Debug)]
struct Running {
    pid: Pid,
    process: OwnedFd,
}

/// Why the balancer cannot be started or supervised.
#[derive(Debug, thiserror::Error)]
enum BalancerError {
    #[error("cannot start {}: {source}; install it beside tucano_ctld, or set balancer.program", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot use the lock {}: {source}", lock.display())]
    Lock { lock: PathBuf, source: io::Error },
    #[error("cannot watch process {pid}: {source}")]
    Watch { pid: i32, source: io::Error },
    #[error("the lock {} is held by a process that is not a balancer of this data directory", .0.display())]
    ForeignLock(PathBuf),
}

impl Supervisor {
    /// For the balancer of this configuration; `None` if it is managed elsewhere (`balancer.spawn = false`).
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
            program: config
                .balancer
                .program
                .clone()
                .unwrap_or_else(default_program),
            arguments,
            lock,
        })
    }

    /// Keeps the balancer running until `stop`, then stops it.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = BACKOFF.0;
        loop {
            let started = Instant::now();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = self.run_once() => if let Err(error) = result {
                    tracing::error!(%error, "no balancer");
                },
            }
            if started.elapsed() > STABLE_AFTER {
                pause = BACKOFF.0;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        if let Err(error) = self.stop().await {
            tracing::error!(%error, "cannot stop the balancer");
        }
    }

    /// Adopts or starts a balancer and watches it until it exits.
    async fn run_once(&self) -> Result<(), BalancerError> {
        if self.is_locked()? {
            return self.adopt().await;
        }
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Signals to the controller's group, such as Ctrl-C, must not reach it.
            .process_group(0)
            .spawn()
            .map_err(|source| BalancerError::Spawn {
                program: self.program.clone(),
                source,
            })?;
        tracing::info!(pid = child.id(), "started the balancer");
        let mut lock_was_held = false;
        loop {
            tokio::select! {
                ended = child.wait() => {
                    match ended {
                        Ok(status) => tracing::warn!(%status, "the balancer exited"),
                        Err(error) => tracing::error!(%error, "cannot wait for the balancer"),
                    }
                    return Ok(());
                }
                () = sleep(CHECK_INTERVAL) => {
                    let is_locked = self.is_locked()?;
                    if lock_was_held && !is_locked {
                        // The next one starts at once; tokio reaps this one when it exits.
                        tracing::warn!(pid = child.id(), "the balancer drains");
                        return Ok(());
                    }
                    lock_was_held |= is_locked;
                }
            }
        }
    }

    async fn adopt(&self) -> Result<(), BalancerError> {
        let Some((running, arguments)) = self.lock_holder()? else {
            // It may be about to write its id, or to exit.
            sleep(CHECK_INTERVAL).await;
            return if self.is_locked()? {
                Err(BalancerError::ForeignLock(self.lock.clone()))
            } else {
                Ok(())
            };
        };
        let pid = running.pid.as_raw_nonzero();
        // If the program is a script, its interpreter's arguments come first.
        if arguments.ends_with(&self.arguments) {
            tracing::info!(%pid, "adopted the running balancer");
            self.wait_released(&running).await?;
            tracing::warn!(%pid, "the balancer exited or drains");
        } else {
            tracing::info!(%pid, "replacing the balancer: its configuration has changed");
            self.replace(&running).await?;
        }
        Ok(())
    }

    /// Waits until a balancer that is not a child has exited, or has given up its lock in order to drain.
    async fn wait_released(&self, running: &Running) -> Result<(), BalancerError> {
        while !running.has_exited() && self.is_locked()? {
            sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    /// Makes a balancer give up its lock, by force if it takes too long. It still answers its requests while the next
    /// one starts.
    async fn replace(&self, running: &Running) -> Result<(), BalancerError> {
        running.signal(Signal::TERM);
        match timeout(STOP_TIMEOUT, self.wait_released(running)).await {
            Ok(released) => released,
            Err(_) => {
                running.signal(Signal::KILL);
                running.wait().await;
                Ok(())
            }
        }
    }

    /// Stops the balancer that holds the lock.
    async fn stop(&self) -> Result<(), BalancerError> {
        if !self.is_locked()? {
            return Ok(());
        }
        if let Some((running, _)) = self.lock_holder()? {
            running.signal(Signal::TERM);
            if timeout(STOP_TIMEOUT, running.wait()).await.is_err() {
                tracing::warn!("the balancer still has requests in flight; it exits when they end");
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

    /// The process that holds the lock, with its arguments; `None` if the id in the file is not that of a balancer
    /// with this lock.
    fn lock_holder(&self) -> Result<Option<(Running, Vec<String>)>, BalancerError> {
        let text = fs::read_to_string(&self.lock).map_err(|source| BalancerError::Lock {
            lock: self.lock.clone(),
            source,
        })?;
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // Open the pidfd first: the id cannot be reused for what is read afterwards.
        let Some(running) = Running::open(pid)? else {
            return Ok(None);
        };
        let arguments = arguments_of(pid);
        let lock = self.lock.display().to_string();
        Ok(arguments.contains(&lock).then_some((running, arguments)))
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

    /// Waits for its exit by polling: it is not a child process, and waiting on a pidfd needs `unsafe`.
    async fn wait(&self) {
        while !self.has_exited() {
            sleep(CHECK_INTERVAL).await;
        }
    }

    fn has_exited(&self) -> bool {
        let mut end = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec::default();
        poll(&mut end, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.process, signal) {
            tracing::debug!(%error, "the balancer has exited already");
        }
    }
}

/// Arguments of a process, without its program; empty if it is gone.
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

/// The balancer installed beside this controller.
fn default_program() -> PathBuf {
    let controller = std::env::current_exe().unwrap_or_default();
    controller
        .parent()
        .unwrap_or(Path::new(""))
        .join("tucano_balancerd")
}
