//! What Tucano has made on a node: a list that must be empty once nothing runs there any more.

use std::{fs, path::Path};

use crate::cluster::Cluster;

/// Every trace of a process on worker `index` (from 0): cgroups, mounts, links, packet rules, directories, processes.
pub fn on_worker(cluster: &Cluster, index: usize) -> Vec<String> {
    let mut traces = Vec::new();
    let mut note = |kind: &str, lines: Vec<String>| {
        traces.extend(lines.into_iter().map(|line| format!("{kind}: {line}")));
    };
    note(
        "cgroup",
        cgroups(Path::new("/sys/fs/cgroup"), &cluster.cgroup(index)),
    );
    let data = cluster.agent_data(index);
    note("process directory", entries(&data.join("processes")));
    note("layer", entries(&data.join("layers")));
    note("blob", entries(&data.join("images/blobs/sha256")));
    note(
        "link",
        lines_with(
            &cluster.output_on(index, "ip", &["-o", "link"]),
            &["veth", "tucano"],
        ),
    );
    note(
        "rule",
        lines_with(
            &cluster.output_on(index, "nft", &["list", "tables"]),
            &["tucano"],
        ),
    );
    let mounts = cluster.output_on(index, "cat", &["/proc/self/mounts"]);
    note("mount", lines_with(&mounts, &["overlay", "/netns/"]));
    let running = cluster.running_on(index).into_iter();
    let running: Vec<String> = running.map(|process| process.arguments).collect();
    note(
        "process",
        lines_with(&running.join("\n"), &["tucano_oci", "/hello"]),
    );
    traces
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn lines_with(text: &str, parts: &[&str]) -> Vec<String> {
    let relevant = |line: &&str| parts.iter().any(|part| line.contains(part));
    text.lines().filter(relevant).map(str::to_owned).collect()
}

/// Directories below `root` whose parent is called `name`: the containers' cgroups.
fn cgroups(root: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            if directory
                .file_name()
                .is_some_and(|directory| directory == name)
            {
                found.push(entry.path().display().to_string());
            } else {
                todo.push(entry.path());
            }
        }
    }
    found
}
