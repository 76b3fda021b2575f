//! Keeps one program of the cluster running.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tucano_vhost::{Host, HostOptions, Network};

use crate::{Error, output::status};

/// Delay before a program is started again: doubled each time it ends soon after its start.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A program that has run this long is restarted after the first delay again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a host without power stays off.
const BOOT_DELAY: Duration = Duration::from_secs(10);

/// A program, and where it runs.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in messages.
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// The listening socket that becomes its standard input, each time it is started.
    pub(super) socket: Option<TcpListener>,
    /// The file that its output is appended to.
    pub(super) log: PathBuf,
    /// How often it has been started.
    pub(super) starts: Arc<AtomicU32>,
}

/// Starts a program, again whenever it ends, until this future is dropped, which ends the program.
pub(super) async fn keep_running(network: Arc<Network>, program: Program) {
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        let end = run_once(&program)
            .await
            .unwrap_or_else(|error| error.to_string());
        delay = next_delay(delay, started.elapsed());
        if !program.host.is_up() {
            boot_again(&network, &program.host).await;
            continue;
        }
        status(&format!(
            "{} ended ({end}); it is started again; its log is {}",
            program.name,
            program.log.display()
        ));
        tokio::time::sleep(delay).await;
    }
}

/// Returns the exit status in words.
async fn run_once(program: &Program) -> Result<String, Error> {
    let file = |source| Error::File {
        action: "open the log",
        path: program.log.clone(),
        source,
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&program.log)
        .map_err(file)?;
    let also = log.try_clone().map_err(file)?;
    let stdin = match &program.socket {
        Some(socket) => {
            let copy = socket
                .try_clone()
                .map_err(|source| Error::Runtime { source })?;
            Stdio::from(OwnedFd::from(copy))
        }
        None => Stdio::null(),
    };
    let mut command = tokio::process::Command::from(program.host.command(&program.program)?);
    let failed = |source| Error::Program {
        program: program.program.clone(),
        source,
    };
    program.starts.fetch_add(1, Ordering::Relaxed);
    // In a process group of its own: Ctrl-C reaches `tucano dev` alone, which then ends the cluster in order.
    command
        .args(&program.arguments)
        .stdin(stdin)
        .stdout(log)
        .stderr(also)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let status = child.wait().await.map_err(failed)?;
    Ok(status.to_string())
}

/// Several programs may run on a host: the first that gets here after the delay boots it.
async fn boot_again(network: &Network, host: &Host) {
    status(&format!(
        "{} lost power; it is booted again in {BOOT_DELAY:?}",
        host.name()
    ));
    tokio::time::sleep(BOOT_DELAY).await;
    if host.is_up() {
        return;
    }
    let options = HostOptions::new(host.name(), host.ip());
    if let Err(error) = host.power_off().and_then(|()| network.boot(options)) {
        status(&format!("cannot boot {}: {error}", host.name()));
    }
}

fn next_delay(delay: Duration, ran: Duration) -> Duration {
    if ran >= STABLE_AFTER {
        FIRST_DELAY
    } else {
        (delay * 2).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_up_to_its_limit_and_is_reset_by_a_stable_run() {
        let mut delay = FIRST_DELAY;
        for _ in 0..10 {
            delay = next_delay(delay, Duration::ZERO);
        }
        assert_eq!(delay, LONGEST_DELAY);
        assert_eq!(next_delay(delay, STABLE_AFTER), FIRST_DELAY);
    }
}
