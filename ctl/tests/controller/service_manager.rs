//! Service manager notifications (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::ctl::{Ctl, TIMEOUT, config, program};

/// A service manager's notification socket.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { directory, socket }
    }

    async fn start(&self, ctl: &mut Ctl) {
        let mut command = program(&ctl.path("ctl.toml"));
        command
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .env("WATCHDOG_USEC", "300000");
        ctl.start_as(command).await;
    }

    /// Skips other notifications before it.
    fn expect(&self, wanted: &str) {
        let mut message = [0; 4096];
        loop {
            let bytes = self.socket.recv(&mut message).unwrap();
            let text = String::from_utf8_lossy(&message[..bytes]);
            if text.lines().any(|line| line.starts_with(wanted)) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn ready_watchdog_reloading_and_stopping_are_sent() {
    let manager = Manager::new();
    let mut ctl = Ctl::prepare(&config(1, "", ""));
    manager.start(&mut ctl).await;
    manager.expect("READY=1");
    manager.expect("STATUS=0 of 1 workers are alive");
    manager.expect("WATCHDOG=1");
    manager.expect("WATCHDOG=1");

    ctl.write_config(&config(2, "", ""));
    ctl.signal(Signal::SIGHUP);
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    manager.expect("STATUS=0 of 2 workers are alive");

    ctl.signal(Signal::SIGTERM);
    manager.expect("STOPPING=1");
}
