//! One machine: switch it on and off, run commands in it, read its console.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tucano_testkit::{wait_for, wait_until};
use tucano_vhost::{Host, HostOptions};

use super::{
    Site,
    shell::{self, Output},
};
use crate::images::workspace;

/// How long booting may take, and how long a script may be silent.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a machine may fill; only what it touches is taken.
const MEMORY: &str = "1G";
/// How much of the console is printed when a test fails.
const CONSOLE_TAIL_LINES: usize = 200;

/// A machine of [`super::Machines`]; switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    site: Arc<Site>,
    options: HostOptions,
    /// More of its kernel's command line.
    words: Vec<String>,
    power: Option<Power>,
    console_is_printed: AtomicBool,
}

/// What there is only while a machine is on.
#[derive(Debug)]
struct Power {
    /// A virtual host; its only process is the machine's kernel, which has its network cable.
    host: Host,
    kernel: Child,
}

impl Machine {
    pub(super) fn new(site: Arc<Site>, options: HostOptions, words: &[&str]) -> Self {
        Self {
            site,
            options,
            words: words.iter().map(ToString::to_string).collect(),
            power: None,
            console_is_printed: AtomicBool::new(false),
        }
    }

    /// Its name, which is its host name too.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.options.ip
    }

    /// Runs a bash script of at most 128 KiB as root; stops waiting when it was silent for five minutes. What it leaves running in the
    /// background must not keep its output: the answer ends with the last writer.
    ///
    /// # Panics
    /// If the machine cannot be reached.
    pub fn run(&self, script: &str) -> Output {
        self.try_run(script)
            .unwrap_or_else(|error| panic!("{}: {script:?}: {error}", self.name()))
    }

    /// Runs a bash script that is to succeed, and gives what it wrote.
    ///
    /// # Panics
    /// If it fails, with what it wrote.
    pub fn ok(&self, script: &str) -> String {
        let Output { exit, text } = self.run(script);
        if exit != 0 {
            self.tell_console();
            panic!(
                "{}: {script:?} ended with {exit} and wrote: {text}",
                self.name()
            );
        }
        text
    }

    /// Runs a bash script until it succeeds, and gives what it wrote then.
    ///
    /// # Panics
    /// If it never does.
    pub fn until(&self, script: &str) -> String {
        let what = format!("{} to succeed with {script:?}", self.name());
        wait_for(&what, PATIENCE, || {
            let output = self.try_run(script).ok()?;
            (output.exit == 0).then_some(output.text)
        })
    }

    /// All that its console showed since its first boot: the kernel, systemd, and what the journal gets.
    pub fn console(&self) -> String {
        fs::read(self.console_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Cuts its power. Its disk keeps what the kernel had written to it.
    ///
    /// # Panics
    /// If it is off.
    pub fn power_off(&mut self) {
        let mut power = self.power.take().expect("the machine is on");
        power.host.power_off().expect("its power is cut");
        power.kernel.wait().expect("its kernel has ended");
    }

    /// Has systemd end everything in its order, and waits until it is off.
    ///
    /// # Panics
    /// If it is off, or does not end.
    pub fn shut_down(&mut self) {
        // The answer's own connection may end first.
        self.try_run("systemctl --no-block poweroff").ok();
        let power = self.power.as_mut().expect("the machine is on");
        wait_until("the machine's end", PATIENCE, || {
            let end = power.kernel.try_wait();
            end.expect("its kernel can be asked").is_some()
        });
        self.power_off();
    }

    /// Switches it on again, with its disk and address, and waits until systemd has started what it is to start.
    ///
    /// # Panics
    /// If it is on, or does not come up.
    pub fn boot(&mut self) {
        self.switch_on();
        self.wait_until_up();
    }

    /// The virtual host whose cable it has: [`Host::isolate`] pulls it, also for [`Machine::run`].
    ///
    /// # Panics
    /// If the machine is off.
    pub fn host(&self) -> &Host {
        &self.power.as_ref().expect("the machine is on").host
    }

    pub(super) fn switch_on(&mut self) {
        assert!(self.power.is_none(), "{} is on", self.name());
        let network = &self.site.network;
        let host = network.boot(self.options.clone()).expect("a virtual host");
        // The address is the machine's, whose kernel takes every packet off the cable itself.
        let flushed = host
            .command("ip")
            .expect("the virtual host runs")
            .args(["address", "flush", "dev", "eth0"])
            .status()
            .expect("ip runs");
        assert!(flushed.success(), "the virtual host keeps its address");
        let kernel = self.start_kernel(&host);
        self.power = Some(Power { host, kernel });
    }

    pub(super) fn wait_until_up(&mut self) {
        let name = self.options.name.clone();
        wait_until(&format!("{name} to boot"), PATIENCE, || {
            let kernel = &mut self.power.as_mut().expect("the machine is on").kernel;
            let end = kernel.try_wait().expect("its kernel can be asked");
            assert_eq!(end, None, "{name} went off while it booted");
            // It says how it is only when it is up: running, or degraded where some unit failed.
            self.try_run("systemctl is-system-running --wait")
                .is_ok_and(|output| ["running", "degraded"].contains(&output.text.trim()))
        });
    }

    fn start_kernel(&self, host: &Host) -> Child {
        let [a, b, c, d] = self.options.ip.octets();
        let directory = host.directory();
        let console = File::options()
            .create(true)
            .append(true)
            .open(self.console_path())
            .expect("a file for the console");
        host.command("linux.uml")
            .expect("the virtual host runs")
            .arg(format!("mem={MEMORY}"))
            .args(["quiet", "root=/dev/ubda", "rw"])
            // Copy on write: the base stays as it is.
            .arg(format!(
                "ubd0={},{}",
                directory.join("disk").display(),
                self.site.base.display()
            ))
            .arg(format!("uml_dir={}/", directory.join("uml").display()))
            .args(["con=null", "con0=null,fd:1"])
            .arg(format!(
                "vec0:transport=raw,ifname=eth0,gro=1,mac=02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"
            ))
            .arg(format!("systemd.hostname={}", self.name()))
            .arg(format!("machine.address={}/24", self.ip()))
            .arg(format!(
                "machine.gateway={}",
                self.site.network.ip_address()
            ))
            .arg(format!("machine.workspace={}", workspace().display()))
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a second descriptor"))
            .stderr(console)
            .spawn()
            .expect("the kernel starts")
    }

    fn try_run(&self, script: &str) -> std::io::Result<Output> {
        self.site
            .network
            .enter(|| shell::run(self.ip(), script, PATIENCE))
            .expect("the network stands")
    }

    /// Once, and before the failure itself, which must not be lost above it.
    fn tell_console(&self) {
        if self.console_is_printed.swap(true, Ordering::Relaxed) {
            return;
        }
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let tail = &lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..];
        eprintln!("--- console of {}:\n{}", self.name(), tail.join("\n"));
    }

    fn console_path(&self) -> PathBuf {
        self.site
            .directory
            .path()
            .join(format!("{}.console", self.name()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_console();
        }
        if self.power.is_some() {
            self.power_off();
        }
    }
}
