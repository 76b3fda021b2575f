//! The containers of a service's processes, and their networks.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::{fd::AsFd, thread::move_into_link_name_space};

use crate::Cluster;

/// A process of a service.
#[derive(Debug)]
pub struct Container {
    /// The process.
    pub id: String,
    /// Index of its worker.
    pub worker: usize,
    /// Its program, as this machine numbers it.
    pub pid: String,
    network: File,
}

/// The processes of a service, ordered by worker.
///
/// # Panics
/// If one of them does not run.
pub fn containers(cluster: &Cluster, service: &str) -> Vec<Container> {
    let processes = cluster.processes(service).into_iter();
    let mut all: Vec<_> = processes
        .map(|process| {
            let worker = cluster.index_of(process.node.as_str());
            Container::of(cluster, worker, process.report.id.to_string())
        })
        .collect();
    all.sort_by_key(|it| it.worker);
    all
}

impl Container {
    fn of(cluster: &Cluster, worker: usize, id: String) -> Self {
        let process = cluster.agent_data(worker).join("processes").join(&id);
        let record = fs::read(process.join("home/supervisor.json")).expect("the record is there");
        let pid = first_pid_of(&record);
        let network = File::open(format!("/proc/{pid}/ns/net")).expect("the program runs");
        Self {
            id,
            worker,
            pid,
            network,
        }
    }

    /// Runs `work` on a new thread in the container's network.
    ///
    /// # Panics
    /// If `work` does, or the network cannot be entered.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let network = self
            .network
            .try_clone()
            .expect("there are descriptors left");
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), None).expect("it is entered");
            work()
        });
        thread.join().expect("the thread does not panic")
    }
}

/// The first program in the container that a supervisor has recorded, as this machine numbers it.
///
/// # Panics
/// If the record has no cgroup, or that has no program.
pub fn first_pid_of(record: &[u8]) -> String {
    let record: serde_json::Value = serde_json::from_slice(record).expect("it is JSON");
    let directories = record["cgroup"]["directories"].as_array();
    let mut directories = directories.expect("it has cgroups").iter();
    let directory = directories
        .find(|entry| ["", "pids"].contains(&entry[0].as_str().unwrap_or("-")))
        .and_then(|entry| entry[1].as_str())
        .expect("one counts processes");
    let listed = fs::read_to_string(Path::new(directory).join("cgroup.procs"));
    let listed = listed.expect("the cgroup is there");
    listed.lines().next().expect("it has a program").to_owned()
}
