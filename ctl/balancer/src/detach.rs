//! `--detach-draining`: the balancer works in a child process, and the program ends as soon as that one drains. A service
//! manager that waits for the program's end starts the next balancer at once, while requests in flight are finished.
//!
//! ```text
//! program ──spawns──► child: takes the lock, serves
//!    │ SIGTERM ─────────► │ keeps running without its parent, releases the lock
//!    ◄──── lock free ──── │
//!   ends                  └─ finishes its requests, ends
//! ```
//!
//! Until it drains the child ends with its parent, whatever ends that: a child that hangs cannot keep the lock.

use std::{
    fs::File,
    io,
    path::Path,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::lock;

/// Tells the child the id of its parent.
const PARENT: &str = "TUCANO_BALANCER_PARENT";
/// How often the lock is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Time for the child to begin to drain.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this is the child. From then on it ends with its parent. Must be called on the main thread.
///
/// # Errors
/// The parent has ended already.
pub fn is_child() -> io::Result<bool> {
    let Ok(parent) = std::env::var(PARENT) else {
        return Ok(false);
    };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let is_alive = getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent);
    match is_alive {
        true => Ok(true),
        false => Err(io::Error::other("the parent process has ended")),
    }
}

/// From now on the child runs without its parent. Must be called on the main thread: the kernel keeps the setting for
/// each thread.
pub fn outlive_parent() {
    if let Err(error) = set_parent_process_death_signal(None) {
        error!(%error, "requests in flight end with the parent process");
    }
}

/// Closes the inherited socket: as long as it is open, nothing else can listen on its address, and the service manager may
/// want to.
pub fn close_stdin() {
    let closed = File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?));
    if let Err(error) = closed {
        error!(%error, "the inherited socket stays open until the last request has ended");
    }
}

/// Runs the balancer in a child process until that one ends, or drains. Must be called on the main thread, whose end
/// counts as the parent's.
pub async fn run(lock: &Path, stop: CancellationToken) -> ExitCode {
    match supervise(lock, stop).await {
        Ok(code) => code,
        Err(error) => {
            error!(%error, "cannot run the balancer in a child process");
            ExitCode::FAILURE
        }
    }
}

async fn supervise(lock: &Path, stop: CancellationToken) -> io::Result<ExitCode> {
    let mut child = spawn()?;
    let mut was_locked = false;
    let mut deadline = None;
    loop {
        tokio::select! {
            ended = child.wait() => return Ok(code(ended?)),
            () = stop.cancelled(), if deadline.is_none() => {
                deadline = Some(Instant::now() + TIMEOUT);
                terminate(&child)?;
            }
            () = sleep(CHECK_INTERVAL) => {}
        }
        let is_locked = lock::is_held(lock);
        if was_locked && !is_locked {
            info!("the balancer drains; this program ends");
            return Ok(ExitCode::SUCCESS);
        }
        was_locked |= is_locked;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            error!("the balancer does not drain; it is killed");
            return Ok(ExitCode::FAILURE);
        }
    }
}

fn spawn() -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        // Signals of a terminal reach the parent alone.
        .process_group(0)
        .env(PARENT, std::process::id().to_string())
        // The child sends the watchdog's pings.
        .env_remove("WATCHDOG_PID")
        .spawn()
}

fn terminate(child: &Child) -> io::Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    match pid {
        Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
        None => Ok(()),
    }
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
