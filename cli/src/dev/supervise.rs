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

use crate::{Error, output::talk};

/// Delay before a program is started again: doubled each time it ends soon after its start.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A program that ran this long had started well.
const STARTED_WELL: Duration = Duration::from_secs(10);
/// How long a host that lost its power stays off.
const POWER_BACK_AFTER: Duration = Duration::from_secs(10);

/// A program, and where it runs.
#[derive(Debug)]
pub(super) struct Program {
    /// As its log is named.
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// The listening socket that becomes its standard input, each time it is started.
    pub(super) socket: Option<TcpListener>,
    /// Where its output goes.
    pub(super) log: PathBuf,
    /// How often it was started.
    pub(super) starts: Arc<AtomicU32>,
}

/// Starts a program again whenever it ends, until this future is dropped; with it the program ends.
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
        talk(&format!(
            "{} ended ({end}): starting it again; see {}",
            program.name,
            program.log.display()
        ));
        tokio::time::sleep(delay).await;
    }
}

/// Gives how it ended.
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
    // An interrupt from the terminal is for `tucano dev` alone, which ends the cluster in order.
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

/// Several programs may run on a host: the first that comes here after the pause boots it.
async fn boot_again(network: &Network, host: &Host) {
    talk(&format!(
        "{} lost its power; it comes back in {POWER_BACK_AFTER:?}",
        host.name()
    ));
    tokio::time::sleep(POWER_BACK_AFTER).await;
    if host.is_up() {
        return;
    }
    let options = HostOptions::new(host.name(), host.ip());
    if let Err(error) = host.power_off().and_then(|()| network.boot(options)) {
        talk(&format!("cannot boot {}: {error}", host.name()));
    }
}

fn next_delay(delay: Duration, ran: Duration) -> Duration {
    if ran >= STARTED_WELL {
        FIRST_DELAY
    } else {
        (delay * 2).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_keeps_ending_is_started_ever_more_slowly() {
        let mut delay = FIRST_DELAY;
        for _ in 0..10 {
            delay = next_delay(delay, Duration::ZERO);
        }
        assert_eq!(delay, LONGEST_DELAY);
        assert_eq!(next_delay(delay, STARTED_WELL), FIRST_DELAY);
    }
}
