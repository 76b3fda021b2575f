//! The life of the packages on a server, from their installation to their removal, by `packages.sh`.

use std::path::PathBuf;

use tempfile::TempDir;
use tucano_testkit::{needs, tool};
use tucano_tests::{
    images,
    machines::{MACHINES, Machine, Machines},
};

use crate::{
    load::Load,
    packages::{are_built, inside, next_version, packages, previous_packages},
};

/// A machine for controller and agent, and the packages for it.
struct Server {
    machines: Machines,
    machine: Machine,
    /// Where machines find this version's, and the next one's.
    first: String,
    next: String,
    _next: TempDir,
}

impl Server {
    /// One with the sample service's archive.
    fn boot(machines: Machines) -> Self {
        Self::boot_with(machines, packages())
    }

    /// One where these packages come first.
    fn boot_with(machines: Machines, first: [PathBuf; 3]) -> Self {
        images::sample("hello");
        let next = tempfile::Builder::new()
            .prefix("packages-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let [machine] = machines.boot(["node"]);
        Self {
            machines,
            machine,
            first: inside(first),
            next: inside(next_version(next.path())),
            _next: next,
        }
    }

    /// Runs a step, which must write these lines.
    fn step(&self, step: &str, lines: &[&str]) {
        let text = self
            .machine
            .ok(&format!("/workspace/tests/guests/packages.sh {step}"));
        for line in lines {
            let is_there = text.lines().any(|other| other == *line);
            assert!(is_there, "{step}: {line:?} is missing in {text}");
        }
    }

    /// Both versions, one after the other, while there are requests and changes.
    fn upgrade_under_load(&self) {
        let address = (self.machine.ip(), 8080).into();
        let load = Load::on(&self.machines, address, "hello.localhost");
        self.step(
            &format!("upgrade {}", self.next),
            &[
                "acknowledged at least one: 1; lost: 0",
                "versions: 9.0.1.0-1",
                "new configuration beside it: 2",
            ],
        );
        let asked = load.stop();
        assert!(asked.answers > 0 && asked.failures.is_empty(), "{asked:?}");
    }

    fn install_and_deploy(&self) {
        self.step(
            &format!("install {}", self.first),
            &[
                "elsewhere than on loopback: 0",
                "/etc/tucano/token root:tucano 640",
                "/etc/tucano/agent-token root:tucano 640",
                "/etc/tucano/ca.pem root:root 644",
                "secrets: 128 bytes, 2 lines",
                "users: tucano tucano root",
                "capabilities: 0000000000000400 0000000000000000",
            ],
        );
        self.step(
            "configure",
            &[
                "on an address that came later: 404",
                "StatusText=1 of 1 workers are alive",
                "IP:7070: ok",
                "IP:7070: 400",
                "IP:7071: ok",
                "IP:7071: 400",
            ],
        );
        self.step(
            "deploy",
            &[
                "processes: 2",
                "program: 1",
                "room for connections: 1",
                "exec: 2",
            ],
        );
    }
}

fn can_run() -> bool {
    needs(&MACHINES) && needs(&[tool("dpkg-deb")]) && are_built()
}

#[test]
fn packages_are_installed_upgraded_under_load_removed_and_purged() {
    if !can_run() {
        return;
    }
    let server = Server::boot(Machines::new());
    server.install_and_deploy();
    server.step("kill", &["restarts: 1 1 1"]);
    server.step(
        "watchdog",
        &["tucano-agent: 1 timeout", "tucano-ctl: 1 timeout"],
    );
    server.upgrade_under_load();
    server.step(
        "remove",
        &["units: 0", "mounts: 0", "processes: 0", "kept: 4"],
    );
    server.step(
        &format!("return {}", server.next),
        &["acknowledged at least one: 1; lost: 0"],
    );
    server.step("purge", &["left: ", "users: 1"]);
}

/// What a newer systemd does in another way: how it starts programs in cgroups, and how it stops and restarts units. A part of the
/// long tests.
#[test]
fn the_same_packages_live_on_debian_13() {
    if std::env::var_os("TUCANO_LONG").is_none() {
        eprintln!("not run: a part of `cargo xtask test --long`");
        return;
    }
    if !can_run() {
        return;
    }
    let mut server = Server::boot(Machines::of("trixie"));
    let release = server.machine.ok("cat /etc/os-release");
    assert!(release.contains("VERSION_CODENAME=trixie"), "{release}");
    server.install_and_deploy();
    server.step("kill", &["restarts: 1 1 1", "failed units: 0"]);
    server.upgrade_under_load();

    server.machine.shut_down();
    server.machine.boot();
    server.step(
        "booted",
        &["last words: Deactivated successfully", "failed units: 0"],
    );
    server.step("purge", &["left: ", "users: 1"]);
}

/// From programs whose agents know no identities: reports, desired sets, records and certificates of both versions meet.
#[test]
fn an_earlier_version_is_upgraded_under_load() {
    if !can_run() {
        return;
    }
    let Some(previous) = previous_packages() else {
        return;
    };
    let server = Server::boot_with(Machines::new(), previous);
    server.install_and_deploy();
    server.upgrade_under_load();
    server.step("kill", &[]);
    server.step("purge", &["left: ", "users: 1"]);
}
