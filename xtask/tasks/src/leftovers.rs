//! That a cluster has left nothing behind.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;

/// What a running cluster uses, noted so that it can be looked for afterwards.
#[derive(Debug)]
pub(crate) struct Traces {
    data: PathBuf,
    addresses: [SocketAddr; 2],
    links: Vec<String>,
    record: Value,
}

impl Traces {
    /// Notes the links of the machine's own network, before a cluster is started.
    pub(crate) fn before(data: &Path, addresses: [SocketAddr; 2]) -> anyhow::Result<Self> {
        Ok(Self {
            data: data.to_owned(),
            addresses,
            links: links()?,
            record: Value::Null,
        })
    }

    /// Notes its processes and cgroups, while it runs.
    pub(crate) fn note(&mut self) -> anyhow::Result<()> {
        let path = self.data.join("network.json");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.record = serde_json::from_str(&text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(())
    }

    /// Fails with everything that is left.
    pub(crate) fn verify_gone(&self) -> anyhow::Result<()> {
        let mut left = self.processes()?;
        left.extend(self.cgroups());
        left.extend(mounts(&self.data)?);
        left.extend(
            links()?
                .into_iter()
                .filter(|link| !self.links.contains(link))
                .map(|link| format!("link {link}")),
        );
        left.extend(
            self.data
                .exists()
                .then(|| format!("directory {}", self.data.display())),
        );
        left.extend(self.addresses.iter().filter_map(|address| {
            let error = TcpListener::bind(address).err()?;
            Some(format!("{address}: {error}"))
        }));
        if left.is_empty() {
            return Ok(());
        }
        bail!("the cluster left behind: {}", left.join("; "));
    }

    /// Processes of the machine, in whatever namespace, whose command line speaks of the cluster's directory.
    fn processes(&self) -> anyhow::Result<Vec<String>> {
        let own = std::process::id().to_string();
        let data = self.data.display().to_string();
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc")
            .context("cannot list processes")?
            .flatten()
        {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if pid != own
                && pid.bytes().all(|byte| byte.is_ascii_digit())
                && command.contains(&data)
            {
                left.push(format!("process {pid} ({})", command.trim()));
            }
        }
        Ok(left)
    }

    fn cgroups(&self) -> Vec<String> {
        let prefix = self.record["cgroup_prefix"].as_str().unwrap_or_default();
        let parents = self.record["cgroup_parents"]
            .as_array()
            .into_iter()
            .flatten();
        let children = parents
            .filter_map(|parent| fs::read_dir(parent.as_str()?).ok())
            .flatten()
            .flatten();
        children
            .filter(|child| {
                !prefix.is_empty() && child.file_name().to_string_lossy().starts_with(prefix)
            })
            .map(|child| format!("cgroup {}", child.path().display()))
            .collect()
    }
}

fn links() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir("/sys/class/net").context("cannot list network links")?;
    Ok(entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

fn mounts(data: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    let data = data.display().to_string();
    let ours = text.lines().filter(|line| line.contains(&data));
    Ok(ours
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| format!("mount {point}"))
        .collect())
}

#[cfg(test)]
mod tests;
