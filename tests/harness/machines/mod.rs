//! Machines: each a User-mode Linux kernel of its own with systemd as its first process, cgroup v2, a disk that survives power
//! cuts, and an address in a private network. They begin with Debian's packages (`base.sh`, `base/`), made once and kept in `target/`:
//! Debian 12's, or those of the suite that the test or `TUCANO_MACHINES_SUITE` names.
//!
//! ```no_run
//! # use tucano_tests::machines::{MACHINES, Machines};
//! # if !tucano_testkit::needs(&MACHINES) { return; }
//! let machines = Machines::new();
//! let [ctl, mut w1] = machines.boot(["ctl", "w1"]);
//! ctl.ok(&format!("dpkg -i /workspace/target/debian/*.deb && ping -c 1 {}", w1.ip()));
//! w1.power_off();
//! w1.boot();
//! ```
//!
//! In a machine, the workspace is at `/workspace`, read-only. What its kernel lacks: nftables' `ip` and `inet` families, the cpuset
//! controller, pressure information, a second processor. System calls are slow: be patient.

mod base;
mod machine;
mod shell;

use std::{env, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tucano_testkit::{Need, ROOT, tool};
use tucano_vhost::{HostOptions, Network, NetworkOptions};

pub use machine::Machine;
pub use shell::Output;

/// What machines need of the machine that runs the tests.
pub const MACHINES: [Need; 7] = [
    ROOT,
    tool("linux.uml"),
    tool("mmdebstrap"),
    tool("mkfs.ext4"),
    tool("ip"),
    tool("unshare"),
    Need::Exists("/usr/lib/uml/modules"),
];

/// Whose packages machines begin with where nothing else is said.
const SUITE: &str = "bookworm";

/// Says another suite of Debian or Ubuntu, one that mmdebstrap knows and has the keys of.
const SUITE_VARIABLE: &str = "TUCANO_MACHINES_SUITE";

/// Number in the subnet of a network's first machine.
const FIRST_ADDRESS: u32 = 10;

/// Some machines and the private network between them. It goes with the last of its machines.
#[derive(Debug)]
pub struct Machines(Arc<Site>);

#[derive(Debug)]
struct Site {
    network: Network,
    /// Holds the disks and the consoles' logs.
    directory: TempDir,
    /// The disk that each machine begins with.
    base: PathBuf,
}

impl Machines {
    /// A network without machines.
    ///
    /// # Panics
    /// If it cannot be made, or the disk that machines begin with.
    #[allow(clippy::new_without_default, reason = "it makes a network")]
    pub fn new() -> Self {
        let suite = env::var(SUITE_VARIABLE);
        Self::of(suite.as_deref().unwrap_or(SUITE))
    }

    /// As [`Self::new`], for machines that begin with packages of this suite, whatever is said elsewhere.
    ///
    /// # Panics
    /// As there.
    pub fn of(suite: &str) -> Self {
        let base = base::disk(suite);
        let directory = tempfile::Builder::new()
            .prefix("tucano-machines-")
            .tempdir()
            .expect("a directory");
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        let options = NetworkOptions::new(name, directory.path().join("network"));
        let network = Network::create(options).expect("a network");
        Self(Arc::new(Site {
            network,
            directory,
            base,
        }))
    }

    /// Switches machines of these names on, all at once, and waits until systemd has started what it is to start. The
    /// first has the address 10.99.0.10, the next 10.99.0.11, and so on: call it once.
    ///
    /// # Panics
    /// If that fails; the consoles' logs are printed then.
    pub fn boot<const N: usize>(&self, names: [&str; N]) -> [Machine; N] {
        self.boot_with(&[], names)
    }

    /// As [`Self::boot`], with more words on their kernels' command lines.
    ///
    /// # Panics
    /// As there.
    pub fn boot_with<const N: usize>(&self, words: &[&str], names: [&str; N]) -> [Machine; N] {
        let mut number = FIRST_ADDRESS;
        let mut machines = names.map(|name| {
            let ip = self.network().subnet().address(number);
            number += 1;
            let mut machine = Machine::new(self.0.clone(), HostOptions::new(name, ip), words);
            machine.switch_on();
            machine
        });
        machines.iter_mut().for_each(Machine::wait_until_up);
        machines
    }

    /// The network: from its own namespace every machine is reached, as from another machine beside them.
    pub fn network(&self) -> &Network {
        &self.0.network
    }
}
