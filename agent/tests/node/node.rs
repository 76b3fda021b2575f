//! A node for one test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tucano_api::{
    agent::{
        DesiredProcess, DesiredSet, NodeReport, Prefetch, PrefetchedBlob, ProcessReport,
        ProcessState,
    },
    ids::{Digest, Generation, Revision},
    service::ServiceConfig,
    settings::parse,
};
use tucano_image_builder::layout::sha256;
use tucano_oci_runtime::cgroup::Cgroup;
use tucano_testkit::{ROOT, needs, programs, tool};

use crate::controller::{Controller, TOKEN};

/// Time limit of a condition on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node with its agent and a fake controller.
pub(crate) struct Node {
    pub(crate) controller: Controller,
    pub(crate) client: reqwest::Client,
    pub(crate) root: tempfile::TempDir,
    pub(crate) agent_address: SocketAddr,
    pub(crate) agent: Option<Child>,
    cgroup: String,
}

/// Runs a test in a network namespace of its own, with only `lo`, and in a mount namespace, so that mounted layers are private.
/// Skips the test where it cannot run.
pub(crate) fn on_a_node(
    more_settings: &'static str,
    test: impl AsyncFnOnce(Node) + Send + 'static,
) {
    if !needs(&[ROOT, tool("nft"), tool("ip")]) {
        return;
    }
    samples();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&Path>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test(Node::start(more_settings).await).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Node {
    async fn start(more_settings: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        tucano_tls::install_provider();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("tucano-agent-test-{}-{count}", std::process::id());
        let controller = Controller::start(samples().to_owned()).await;
        let root = tempfile::tempdir().unwrap();
        let agent_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7071));
        let settings = format!(
            "controller = \"http://{}\"\ntoken = \"{TOKEN}\"\ndata_dir = \"{}\"\nlisten = \"{agent_address}\"\n\
             publish_interval = \"200ms\"\ncgroup = \"{cgroup}\"\nunused_images_kept = \"0s\"\n{more_settings}",
            controller.address,
            root.path().join("data").display(),
        );
        fs::write(root.path().join("agent.toml"), settings).unwrap();
        let mut node = Self {
            controller,
            client: reqwest::Client::new(),
            root,
            agent_address,
            agent: None,
            cgroup,
        };
        node.start_agent().await;
        node
    }

    /// Starts the agent and waits for its first report.
    pub(crate) async fn start_agent(&mut self) {
        self.controller.forget_reports();
        self.agent = Some(self.spawn_agent());
        self.wait_for("the agent's first report", |_| Some(()))
            .await;
    }

    /// Changes the configuration of the next agent.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let path = self.root.path().join("agent.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, change(text)).unwrap();
    }

    /// Starts an agent with the node's configuration.
    pub(crate) fn spawn_agent(&self) -> Child {
        self.spawn_agent_logging_to(self.log())
    }

    /// Like [`Self::start_agent`], with a log pipe whose reader has ended.
    pub(crate) async fn start_agent_with_broken_log(&mut self) {
        self.controller.forget_reports();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.agent = Some(self.spawn_agent_logging_to(writer));
        self.wait_for("the agent's first report", |_| Some(()))
            .await;
    }

    fn spawn_agent_logging_to(&self, log: impl Into<Stdio>) -> Child {
        Command::new(programs().join("tucano_agentd"))
            .arg("--config")
            .arg(self.root.path().join("agent.toml"))
            .env("RUST_LOG", "tucano_agent=debug")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn log(&self) -> fs::File {
        let path = self.root.path().join("agent.log");
        fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    /// The agent's log.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.root.path().join("agent.log")).unwrap()
    }

    /// kill -9.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Sends SIGTERM; returns the exit code.
    pub(crate) fn end_agent(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        agent.wait().unwrap().code()
    }

    /// Sends the agent a desired set, which it must accept.
    pub(crate) async fn desire(&self, generation: u64, processes: Vec<DesiredProcess>) {
        self.controller.announce(generation);
        let (status, body) = self.put(&desired(generation, processes)).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Sends the agent a desired set; returns status and body.
    pub(crate) async fn put(&self, set: &DesiredSet) -> (u16, String) {
        let url = format!("http://{}/v1/desired", self.agent_address);
        let request = self.client.put(url).bearer_auth(TOKEN).json(set);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Sends the agent a prefetch hint; returns the status.
    pub(crate) async fn prefetch(&self, blobs: &[&[u8]]) -> u16 {
        let blobs = blobs.iter().map(|blob| PrefetchedBlob {
            digest: sha256(blob).parse().unwrap(),
            bytes: blob.len() as u64,
        });
        let hint = Prefetch {
            blobs: blobs.collect(),
            withdrawn: Vec::new(),
        };
        let url = format!("http://{}/v1/prefetch", self.agent_address);
        let request = self.client.post(url).bearer_auth(TOKEN).json(&hint);
        request.send().await.unwrap().status().as_u16()
    }

    /// Waits until a report satisfies the condition.
    pub(crate) async fn wait_for<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&NodeReport) -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self
                .controller
                .last_report()
                .as_ref()
                .and_then(&mut condition)
            {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "timed out waiting for {what}; last report: {:#?}\nlog:\n{}",
                self.controller.last_report(),
                self.logged(),
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a process satisfies the condition.
    pub(crate) async fn wait_for_process(
        &self,
        id: &str,
        what: &str,
        condition: impl Fn(&ProcessReport) -> bool,
    ) -> ProcessReport {
        let what = format!("{id}: {what}");
        self.wait_for(&what, |report| {
            let mut processes = report.processes.iter();
            processes
                .find(|process| process.id.as_str() == id && condition(process))
                .cloned()
        })
        .await
    }

    /// Waits until something holds that no report tells of.
    pub(crate) async fn until_it_holds(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "timed out waiting until {what}\nlog:\n{}",
                self.logged()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn wait_until_healthy(&self, id: &str) -> ProcessReport {
        self.wait_for_process(id, "healthy", |process| {
            process.state == ProcessState::Healthy
        })
        .await
    }

    /// Removes all processes, and waits until none has left anything behind.
    pub(crate) async fn remove_all(&self, generation: u64) {
        self.desire(generation, Vec::new()).await;
        self.wait_for("nothing to run", |report| {
            report.processes.is_empty().then_some(())
        })
        .await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let traces = self.traces();
            if traces.is_empty() {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "left behind: {traces:#?}\n{}",
                self.logged()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that processes have on the node: links, rules, cgroups, directories, mounts.
    pub(crate) fn traces(&self) -> Vec<String> {
        let links = output("ip", &["-o", "link", "show"]);
        let rules = output("nft", &["list", "tables"]);
        let links = links.lines().filter(|line| !line.contains(" lo: "));
        let mut traces: Vec<String> = links.chain(rules.lines()).map(str::to_owned).collect();
        let directories = fs::read_dir(self.data("processes")).unwrap();
        traces.extend(directories.map(|entry| entry.unwrap().path().display().to_string()));
        traces.extend(self.cgroups());
        let ready = self.ready_supervisors().into_iter();
        traces.extend(ready.map(|pid| format!("a supervisor that is ready: {pid}")));
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = self.root.path().display().to_string();
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&root))
                .map(str::to_owned),
        );
        traces
    }

    /// Pids of the node's prepared supervisors, recognised by their empty arguments.
    pub(crate) fn ready_supervisors(&self) -> Vec<i64> {
        let network = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let all = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
                let mut words = command.split('\0').skip(1);
                let waits = words.next()? == "supervise" && words.next()?.trim().is_empty();
                let here = fs::read_link(entry.path().join("ns/net")).ok()? == network;
                entry
                    .file_name()
                    .to_str()?
                    .parse()
                    .ok()
                    .filter(|_| waits && here)
            });
        all.collect()
    }

    /// Every cgroup directory of the node, in any hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let found = output(
            "find",
            &["/sys/fs/cgroup", "-type", "d", "-name", &self.cgroup],
        );
        found.lines().map(str::to_owned).collect()
    }

    pub(crate) fn data(&self, path: &str) -> PathBuf {
        self.root.path().join("data").join(path)
    }

    /// The pid of a container's first process, from the runtime's record.
    pub(crate) fn pid(&self, id: &str) -> i64 {
        self.recorded_pid(id, "container")
    }

    /// The pid of its supervisor, from the runtime's record.
    pub(crate) fn supervisor(&self, id: &str) -> i64 {
        self.recorded_pid(id, "supervisor")
    }

    fn recorded_pid(&self, id: &str, which: &str) -> i64 {
        let path = self.data("processes").join(id).join("home/supervisor.json");
        let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        record[which]["pid"].as_i64().unwrap()
    }

    /// Body of a GET request through the process's node port.
    pub(crate) async fn get(&self, process: &ProcessReport, path: &str) -> reqwest::Result<String> {
        let port = process.node_port.unwrap();
        let url = format!("http://127.0.0.1:{port}{path}");
        let request = self.client.get(url).timeout(Duration::from_secs(10));
        request.send().await?.text().await
    }

    /// The response to a request for logs.
    pub(crate) async fn logs(&self, id: &str, query: &str) -> reqwest::Response {
        let url = format!(
            "http://{}/v1/processes/{id}/logs?{query}",
            self.agent_address
        );
        self.client
            .get(url)
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap()
    }
}

impl Drop for Node {
    /// Cleans up after a failed test, too. Links and rules vanish with the network namespace.
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().ok();
            agent.wait().ok();
        }
        let processes = fs::read_dir(self.data("processes")).into_iter().flatten();
        for process in processes.flatten() {
            if let Ok(Some(cgroup)) = Cgroup::of(&process.path().join("home")) {
                cgroup.destroy().ok();
            }
        }
        tucano_oci_runtime::cgroup::remove_parent(&self.cgroup).ok();
    }
}

/// A desired set for this node.
pub(crate) fn desired(generation: u64, processes: Vec<DesiredProcess>) -> DesiredSet {
    DesiredSet {
        generation: Generation(generation),
        processes,
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

/// The `number`-th process of a service that runs a sample image.
pub(crate) fn process(sample: &str, number: u64, more_config: &str) -> DesiredProcess {
    let text = format!("name = \"{sample}\"\nconcurrency = 1\nport = 8080\n{more_config}");
    let config: ServiceConfig = parse("service.toml", &text).unwrap();
    DesiredProcess {
        address: None,
        kept: Default::default(),
        devices: Vec::new(),
        id: tucano_api::ids::ProcessId::new(&config.name, number),
        revision: Revision(1),
        image: manifest_of(sample),
        config,
        slot: None,
        volumes: Vec::new(),
        run: None,
    }
}

fn manifest_of(sample: &str) -> Digest {
    let index = fs::read(samples().join(sample).join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    index["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// The sample services' images.
fn samples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let out = workspace.join("target/images");
        tucano_image_builder::build_all(workspace, &out).expect("the sample images can be built");
        out
    })
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    assert!(
        Command::new(program)
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

/// Standard output of a program.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Standard output of a program in a process's network namespace.
pub(crate) fn in_network_of(node: &Node, id: &str, command: &[&str]) -> String {
    let pid = node.pid(id).to_string();
    let enter = ["-t", &pid, "-n"];
    output("nsenter", &[&enter, command].concat())
}
