//! What is measured. Each run is one process that creates, starts, awaits and removes a container.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use crate::bundle::{Bundle, CGROUPS, MEMORY_BYTES};

pub(crate) const OURS: &str = "tucano_oci";
pub(crate) const FLOOR: &str = "floor";

/// A program that runs the bundle.
#[derive(Debug)]
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    kind: Kind,
    bundle: &'a Bundle,
}

#[derive(Debug)]
enum Kind {
    /// A runtime with runc's command line.
    Runtime(PathBuf),
    /// The floor's program, with this filter.
    Floor(PathBuf),
}

/// Result of a run, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measurement {
    pub(crate) wall: f64,
    /// CPU time of the process and its reaped children, user and system.
    pub(crate) cpu: f64,
}

impl<'a> Contender<'a> {
    /// The contenders whose programs are available.
    pub(crate) fn available(bundle: &'a Bundle, ours: &Path) -> Vec<Self> {
        let one = |name: &str, kind| Self {
            name: name.to_owned(),
            kind,
            bundle,
        };
        let mut all = vec![
            one(FLOOR, Kind::Floor(bundle.filter("list"))),
            one("floor, tree filter", Kind::Floor(bundle.filter("tree"))),
            one(OURS, Kind::Runtime(ours.to_owned())),
        ];
        for name in ["runc", "crun", "youki"] {
            match find(name) {
                Some(program) => all.push(one(name, Kind::Runtime(program))),
                None => eprintln!("bench: {name} is not installed: left out"),
            }
        }
        all
    }

    /// Runs one container, from its creation to its removal.
    pub(crate) fn run_once(&self, id: &str) -> Result<Measurement> {
        let mut command = self.command(id)?;
        let said = self.bundle.state.join(format!("{id}.stderr"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said)?);
        let (begin, before) = (Instant::now(), cpu()?);
        let status = command.status()?;
        let measured = Measurement {
            wall: begin.elapsed().as_secs_f64(),
            cpu: cpu()? - before,
        };
        if !status.success() {
            bail!("it failed: {}", fs::read_to_string(&said)?.trim());
        }
        Ok(measured)
    }

    fn command(&self, id: &str) -> Result<Command> {
        match &self.kind {
            Kind::Runtime(program) => {
                let mut command = Command::new(program);
                let root = self.bundle.state.join(&self.name);
                command.arg("--root").arg(root).args(["run", "--bundle"]);
                command.arg(self.bundle.of_container(id)?).arg(id);
                Ok(command)
            }
            Kind::Floor(filter) => {
                let mut command = Command::new(&self.bundle.floor);
                command.arg(self.bundle.root()).arg(filter);
                command.args(self.words(id)?);
                Ok(command)
            }
        }
    }

    /// The floor gets as arguments what others read from the bundle.
    fn words(&self, id: &str) -> Result<Vec<String>> {
        let mut words = cgroup_words(id)?;
        let linux = self.bundle.spec.linux().as_ref().context("no linux")?;
        let paths = |prefix: &str, list: &Option<Vec<String>>| -> Vec<String> {
            let list = list.iter().flatten();
            list.map(|path| format!("{prefix}:{path}")).collect()
        };
        words.extend(paths("mask", linux.masked_paths()));
        words.extend(paths("ro", linux.readonly_paths()));
        Ok(words)
    }
}

/// The bundle's limits as files of the cgroup hierarchies.
fn cgroup_words(id: &str) -> Result<Vec<String>> {
    let top = Path::new("/sys/fs/cgroup");
    let memory = MEMORY_BYTES.to_string();
    let mut words = Vec::new();
    let mut add = |name: &str, below: &Path, settings: &[(&str, &str)]| -> Result<()> {
        fs::create_dir_all(below)?;
        let directory = below.join(id);
        words.push(format!("cgroup:{name}:{}", directory.display()));
        words.extend(
            settings
                .iter()
                .map(|(file, value)| format!("set:{}={value}", directory.join(file).display())),
        );
        Ok(())
    };
    if top.join("cgroup.controllers").exists() {
        let settings = [
            ("memory.max", &*memory),
            ("pids.max", "100"),
            ("cpu.max", "100000 100000"),
        ];
        add("unified", &top.join(CGROUPS), &settings)?;
        return Ok(words);
    }
    let (bytes, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    add(
        "memory",
        &top.join("memory").join(CGROUPS),
        &[(bytes, &memory), (both, &memory)],
    )?;
    add(
        "pids",
        &top.join("pids").join(CGROUPS),
        &[("pids.max", "100")],
    )?;
    let quota = [
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "100000"),
    ];
    add("cpu", &top.join("cpu").join(CGROUPS), &quota)?;
    let devices = [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:* rwm"),
        ("devices.allow", "c 5:* rwm"),
        ("devices.allow", "c 136:* rwm"),
    ];
    add("devices", &top.join("devices").join(CGROUPS), &devices)?;
    Ok(words)
}

impl Measurement {
    /// The median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            wall: middle(|one| one.wall),
            cpu: middle(|one| one.cpu),
        }
    }
}

/// CPU time of reaped children in seconds.
pub(crate) fn cpu() -> Result<f64> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(used.user_time()) + seconds(used.system_time()))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|place| place.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_own_median() {
        let measured = |wall, cpu| Measurement { wall, cpu };
        let runs = [measured(3.0, 1.0), measured(1.0, 2.0), measured(2.0, 9.0)];
        assert_eq!(Measurement::median(&runs), measured(2.0, 2.0));
    }
}
