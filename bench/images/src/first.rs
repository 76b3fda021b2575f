//! From an image's archive to the first process that runs from it: `load` and `run` of other tools, and a deploy to a
//! controller and an agent of this project, which run before the measurement begins, like the daemons of other tools.
//!
//! The measurement ends when a process of the image's program is seen, whatever the tool is still doing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    daemon::Daemon,
    image::{Image, PROGRAM},
    place::run,
};

const TIMEOUT: Duration = Duration::from_secs(180);
const API: &str = "http://127.0.0.1:7070/v1";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Options of podman for a private storage.
const STORAGE: &str = "--root $PWD/root --runroot $PWD/run --storage-driver overlay";

/// A tool that runs a process from an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// One request with the archive; the agent unpacks layers while others arrive.
    Ours,
    /// The same without prefetching.
    OursAfterwards,
    /// `docker load`, `docker run`.
    Docker,
    /// `podman load`, `podman run`.
    Podman,
    /// `ctr image import`, `ctr run`.
    Ctr,
}

impl Runner {
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Ours, "curl"),
        (Self::OursAfterwards, "curl"),
        (Self::Docker, "dockerd"),
        (Self::Podman, "podman"),
        (Self::Ctr, "ctr"),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursAfterwards => "ours, without prefetching",
            Self::Docker => "docker load, run",
            Self::Podman => "podman load, run",
            Self::Ctr => "ctr import, run",
        }
    }

    /// Runs once in an empty directory and returns the seconds until the process was seen. `rate` limits the upload,
    /// as for curl.
    pub(crate) fn run(self, image: &Image, into: &Path, rate: Option<&str>) -> Result<f64> {
        let archive = image.archive.display();
        let cluster = match self {
            Self::Ours => Some(Cluster::start(into, 5)?),
            Self::OursAfterwards => Some(Cluster::start(into, 0)?),
            _ => None,
        };
        let _daemon = match self {
            Self::Docker => Some(Daemon::docker(into)?),
            Self::Ctr => Some(Daemon::containerd(into)?),
            _ => None,
        };
        let script = match self {
            Self::Ours | Self::OursAfterwards => {
                let rate = rate.map_or_else(String::new, |rate| format!("--limit-rate {rate}"));
                format!(
                    "curl -sS --fail-with-body {rate} -F config=@service.toml -F image=@{archive} {API}/services"
                )
            }
            Self::Docker => {
                let archive = image.docker.as_ref().context("no archive for Docker")?;
                format!(
                    "docker -H unix://$PWD/socket load --quiet --input {} &&
                     docker -H unix://$PWD/socket run --detach --network none bench:latest",
                    archive.display()
                )
            }
            // crun refuses hybrid cgroups, so the v2 hierarchy beside v1's is hidden from it.
            Self::Podman => format!(
                "podman {STORAGE} load --quiet --input {archive} &&
                 unshare --mount sh -c 'umount /sys/fs/cgroup/unified 2> /dev/null
                     exec podman {STORAGE} run --detach --network none --cgroups disabled \
                         --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 $(podman {STORAGE} images --quiet)'"
            ),
            Self::Ctr => format!(
                "ctr --address $PWD/socket image import {archive} > imported &&
                 ctr --address $PWD/socket run --detach $(ctr --address $PWD/socket image ls --quiet) {}",
                unique()
            ),
        };
        ensure!(
            find_process().is_none(),
            "a process {PROGRAM:?} runs already"
        );
        let wall = timed(&script, into).with_context(|| self.name());
        if let Some(cluster) = cluster {
            cluster.end()?;
        }
        end_all()?;
        self.forget(into)?;
        wall
    }

    /// Removes containers of other tools, some of which clean up only then.
    fn forget(self, place: &Path) -> Result<()> {
        let script = match self {
            Self::Podman => format!("podman {STORAGE} rm --all --force"),
            Self::Ctr => format!(
                "ctr --address $PWD/socket task delete {0}; ctr --address $PWD/socket container delete {0}",
                unique()
            ),
            _ => return Ok(()),
        };
        run(Command::new("sh").args(["-c", &script]).current_dir(place))
    }
}

/// Seconds until the program is seen.
fn timed(script: &str, directory: &Path) -> Result<f64> {
    let log = directory.join("talk");
    let begin = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()
        .context("cannot start sh")?;
    let seen_after = loop {
        if find_process().is_some() {
            break Ok(begin.elapsed().as_secs_f64());
        }
        let failed = child.try_wait()?.is_some_and(|status| !status.success());
        if failed || begin.elapsed() > TIMEOUT {
            break Err(anyhow::anyhow!("no process: {}", fs::read_to_string(&log)?));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    };
    child.wait()?;
    seen_after
}

/// A process of the image's program.
fn find_process() -> Option<i32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.find(|pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim_end() == PROGRAM)
    })
}

/// Kills all processes of the program, which only this benchmark uses.
fn end_all() -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while let Some(pid) = find_process() {
        ensure!(Instant::now() < deadline, "process {pid} does not end");
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            if ended.is_err() {
                // It has exited already.
                continue;
            }
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// A controller and an agent in this program's network namespace.
struct Cluster {
    programs: Vec<Child>,
}

impl Cluster {
    fn start(place: &Path, prefetching_agents: u32) -> Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own.parent().context("this program is nowhere")?;
        let path = place.display();
        let ctl = format!(
            "data_dir = \"{path}/ctl\"\n[api]\nlisten = [\"127.0.0.1:7070\"]\n[balancer]\nspawn = false\n\
             [limits]\nprefetching_agents = {prefetching_agents}\n\
             [[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n\
             [[topology]]\nkind = \"worker\"\nip = \"127.0.0.11\"\nname = \"w1\"\n"
        );
        let agent = format!(
            "controller = \"http://127.0.0.1:7070\"\ndata_dir = \"{path}/agent\"\nip = \"127.0.0.11\"\nname = \"w1\"\n\
             listen = \"127.0.0.11:7071\"\npublish_interval = \"200ms\"\ncgroup = \"{}\"\n",
            unique()
        );
        fs::write(place.join("ctl.toml"), ctl)?;
        fs::write(place.join("agent.toml"), agent)?;
        fs::write(
            place.join("service.toml"),
            "name = \"bench\"\nconcurrency = 1\nport = 8080\n",
        )?;
        let start = |program: &str, config: &str| -> Result<Child> {
            let program: PathBuf = beside.join(program);
            let log = File::create(place.join(config).with_extension("log"))?;
            Command::new(&program)
                .arg("--config")
                .arg(place.join(config))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start {}: build it first", program.display()))
        };
        let mut cluster = Self {
            programs: vec![start("tucano_ctld", "ctl.toml")?],
        };
        cluster.programs.push(start("tucano_agentd", "agent.toml")?);
        cluster.wait_for("an agent that reports", || {
            get("nodes").is_ok_and(|nodes| nodes.contains("\"w1\"") && nodes.contains("\"alive\""))
        })?;
        Ok(cluster)
    }

    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !condition() {
            ensure!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Removes the service, so that nothing of it remains in the kernel.
    fn end(self) -> Result<()> {
        if get("services")?.contains("\"bench\"") {
            run(Command::new("curl")
                .args(["-sSf", "-X", "DELETE"])
                .arg(format!("{API}/services/bench")))?;
            self.wait_for("the process to end", || find_process().is_none())?;
            self.wait_for("the agent to clear up", || {
                get("nodes").is_ok_and(|nodes| !nodes.contains("bench-"))
            })?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for program in self.programs.iter_mut().rev() {
            let pid = rustix::process::Pid::from_child(program);
            let ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if let Err(error) = ended.map_err(Into::into).and_then(|()| program.wait()) {
                eprintln!("bench: cannot end a program: {error}");
            }
        }
        // The agent leaves the parent of its cgroups to its successor, which does not exist here; v1 or v2.
        let mounts = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
        for mount in mounts.map(|entry| entry.path()).chain([CGROUPS.into()]) {
            drop(fs::remove_dir(mount.join(unique())));
        }
    }
}

/// Name of the agent's cgroup parent and of containerd's container, unique to this run.
fn unique() -> String {
    format!("tucano-bench-{}", std::process::id())
}

fn get(what: &str) -> Result<String> {
    let output = Command::new("curl")
        .args(["-sSf", &format!("{API}/{what}")])
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
