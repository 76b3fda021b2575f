//! Daemons of other tools, each with a private root, state and socket, for one run.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running daemon. It is stopped when the value is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Docker with its containerd, without networks.
    pub(crate) fn docker(place: &Path) -> Result<Self> {
        let socket = place.join("socket");
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(place.join("data"))
            .arg("--exec-root")
            .arg(place.join("exec"))
            .arg("--pidfile")
            .arg(place.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
            .args(["--storage-driver", "overlay2"]);
        Self::start(command, &socket, place)
    }

    /// containerd alone.
    pub(crate) fn containerd(place: &Path) -> Result<Self> {
        let socket = place.join("socket");
        let mut command = Command::new("containerd");
        command
            .arg("--root")
            .arg(place.join("data"))
            .arg("--state")
            .arg(place.join("exec"))
            .arg("--address")
            .arg(&socket);
        Self::start(command, &socket, place)
    }

    fn start(mut command: Command, socket: &Path, place: &Path) -> Result<Self> {
        let log = File::create(place.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut daemon = Self { child };
        let deadline = Instant::now() + TIMEOUT;
        // Docker creates its socket before it answers.
        while !answers(socket) {
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(
                    "{command:?} does not answer: see {}",
                    place.join("log").display()
                );
            }
            std::thread::yield_now();
        }
        Ok(daemon)
    }
}

fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            eprintln!("bench: cannot end a daemon: {error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("bench: cannot wait for a daemon: {error}");
        }
    }
}
