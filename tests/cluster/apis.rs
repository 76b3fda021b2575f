//! What processes must not reach: the APIs of the cluster's programs and the node ports of all workers.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use tucano_testkit::{needs, tool};
use tucano_tests::{CLUSTER, Cluster, Options, containers::first_pid_of, images};

/// A program of a worker's process, as this machine numbers it.
fn pid_of_a_process(cluster: &Cluster, worker: usize) -> String {
    let processes = fs::read_dir(cluster.agent_data(worker).join("processes")).unwrap();
    let home = processes.map(|entry| entry.unwrap().path().join("home"));
    let record = home.filter_map(|home| fs::read(home.join("supervisor.json")).ok());
    first_pid_of(&record.last().unwrap())
}

/// Whether a process connects. What is dropped is never answered.
fn reaches(pid: &str, to: SocketAddr) -> bool {
    let connect = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    Command::new("timeout")
        .args(["2", "nsenter", "-t", pid, "-n", "bash", "-c", &connect])
        .status()
        .unwrap()
        .success()
}

#[test]
fn processes_reach_the_balancer_but_no_api_nor_node_port_of_any_node() {
    if !needs(&CLUSTER) || !needs(&[tool("nsenter"), tool("timeout")]) {
        return;
    }
    let mut cluster = Cluster::start(&Options {
        workers: 2,
        ..Options::default()
    });
    let service = "name = \"hello\"\nconcurrency = 2\nport = 8080\nmemory = \"32MiB\"\n";
    cluster.deploy_healthy(service, &images::sample("hello"));
    let other = cluster.worker(1).ip();
    let ctl = cluster.ctl().ip();
    let at = |ip: std::net::Ipv4Addr, port| SocketAddr::new(IpAddr::from(ip), port);
    let apis = [at(other, 7071), at(ctl, 7070)];

    let pid = pid_of_a_process(&cluster, 0);
    cluster.wait("the APIs to be out of reach", || {
        let reached = apis.iter().any(|api| reaches(&pid, *api));
        (!reached).then_some(())
    });
    // They answer all the same, to the node itself.
    for api in apis {
        let connect = format!("exec 3<>/dev/tcp/{}/{}", api.ip(), api.port());
        cluster.output_on(0, "bash", &["-c", &connect]);
    }
    assert!(reaches(&pid, cluster.balancer()));
    let name = cluster.worker(1).name();
    let mut processes = cluster.processes("hello").into_iter();
    let on_other = processes.find(|process| process.node.as_str() == name);
    let neighbour = at(other, on_other.unwrap().report.node_port.unwrap());
    cluster.wait("node ports to be out of reach", || {
        (!reaches(&pid, neighbour)).then_some(())
    });
    let connect = format!("exec 3<>/dev/tcp/{}/{}", neighbour.ip(), neighbour.port());
    cluster.output_on(0, "bash", &["-c", &connect]);

    // The next agent knows before the controller tells it; a controller that has just begun knows no agent's port.
    cluster.kill_agent(0);
    cluster.kill_ctld();
    cluster.start_agent(0);
    cluster.start_ctld();
    cluster.wait_for_alive(2);
    assert!(!apis.iter().any(|api| reaches(&pid, *api)));
    assert!(reaches(&pid, cluster.balancer()));
}
