//! A whole cluster on virtual hosts: one controller, some workers, and a user beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tucano_api::{
    agent::ProcessState,
    state::{ProcessView, ServiceView, State},
};
use tucano_testkit::{programs, wait_for};
use tucano_vhost::{Host, HostOptions, Network, NetworkOptions};

use crate::{
    processes::{self, Process},
    user::{Alerts, Answer, User, answer},
};

/// The sysadmin's token in every test cluster.
pub const TOKEN: &str = "the-token-of-a-test-cluster";
const AGENT_TOKEN: &str = "the-agents-token-of-a-test-cluster";
/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of workers.
    pub workers: usize,
    /// Lines put at the top of ctl.toml.
    pub ctl_settings: String,
    /// Lines put into `[api]` of ctl.toml.
    pub api_settings: String,
    /// Lines put into each agent.toml.
    pub agent_settings: String,
    /// Size of a file system of its own for the controller's data, as tmpfs's `size` option has it.
    pub ctl_disk: Option<&'static str>,
    /// As `ctl_disk`, for the first worker's agent.
    pub agent_disk: Option<&'static str>,
    /// Line put into the topology entry of each worker, by index.
    pub worker_settings: BTreeMap<usize, String>,
    /// What runs the agents of some workers, by index, instead of the workers' hosts themselves.
    pub agents: BTreeMap<usize, RunAgent>,
    /// How long [`Cluster::wait`] waits.
    pub patience: Duration,
}

/// Makes the command, to be run on the host, that runs an agent with these settings.
pub type RunAgent = fn(&Host, &Path) -> Command;

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 3,
            ctl_settings: "lease = \"2s\"\ndrain = \"500ms\"\nrebalance_after = \"2s\"\n"
                .to_owned(),
            api_settings: String::new(),
            agent_settings: "publish_interval = \"300ms\"\nunused_images_kept = \"0s\"\n"
                .to_owned(),
            ctl_disk: None,
            agent_disk: None,
            worker_settings: BTreeMap::new(),
            agents: BTreeMap::new(),
            patience: PATIENCE,
        }
    }
}

/// A running cluster; gone with all its processes when dropped.
#[derive(Debug)]
pub struct Cluster {
    user: User,
    alerts: Alerts,
    ctl: Host,
    workers: Vec<Host>,
    running: BTreeMap<String, Child>,
    network: Network,
    directory: TempDir,
    agents: BTreeMap<usize, RunAgent>,
    patience: Duration,
    /// Clusters share two CPUs and measure recovery: one at a time.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Boots the hosts, starts the programs and waits until every worker is alive.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(options: &Options) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let directory = tempfile::Builder::new()
            .prefix("tucano-test-")
            .tempdir()
            .expect("a directory");
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        let options_of_network = NetworkOptions::new(&name, directory.path().join("network"));
        let network = Network::create(options_of_network).expect("a network");
        let boot = |host: &str, ip| {
            network
                .boot(HostOptions::new(host, ip))
                .expect("a host boots")
        };
        let ctl = boot("ctl", ctl_ip(&network));
        let workers = (0..options.workers).map(|i| boot(&worker_name(i), worker_ip(&network, i)));
        let workers = workers.collect();
        let user = User::on(&network);
        let alerts = user.take_alerts(SocketAddr::new(network.ip_address().into(), 9000));
        let running = BTreeMap::new();
        let mut cluster = Self {
            user,
            alerts,
            ctl,
            workers,
            running,
            network,
            directory,
            agents: options.agents.clone(),
            patience: options.patience,
            _turn: turn,
        };
        cluster.write_settings(options);
        if let Some(size) = options.ctl_disk {
            mount_disk(cluster.on_ctl("mount"), size, &cluster.path("ctl"));
        }
        if let Some(size) = options.agent_disk {
            mount_disk(cluster.on_worker(0, "mount"), size, &cluster.agent_data(0));
        }
        cluster.start_ctld();
        cluster.take_authority();
        for index in 0..options.workers {
            cluster.start_agent(index);
        }
        cluster.wait_for_alive(options.workers);
        cluster
    }

    /// Copies the certificate of the cluster's authority, as the controller's package does, for agents and users.
    ///
    /// # Panics
    /// If there is none.
    pub fn take_authority(&mut self) {
        let ca = self.ca_file();
        self.wait("the authority's certificate", || {
            let copied = self
                .on_ctl(programs().join("tucano_ctld"))
                .arg("--config")
                .arg(self.path("ctl.toml"))
                .arg("--write-ca")
                .arg(&ca)
                .output()
                .expect("the controller's program runs");
            copied.status.success().then_some(())
        });
        self.user.trust(&fs::read(ca).expect("the certificate"));
    }

    fn write_settings(&self, options: &Options) {
        fs::write(self.path("ctl.toml"), self.ctl_toml(options)).expect("ctl.toml");
        for index in 0..options.workers {
            let text = format!(
                "controller = \"{}\"\nca_file = \"{}\"\ntoken = \"{AGENT_TOKEN}\"\nip = \"{}\"\ndata_dir = \"{}\"\n\
                 cgroup = \"{}\"\n{}",
                self.api(),
                self.ca_file().display(),
                self.workers[index].ip(),
                self.agent_data(index).display(),
                self.cgroup(index),
                options.agent_settings,
            );
            fs::write(self.path(&format!("{}.toml", worker_name(index))), text)
                .expect("agent.toml");
        }
    }

    fn ctl_toml(&self, options: &Options) -> String {
        let mut text = format!(
            "{}data_dir = \"{}\"\ntoken = \"{TOKEN}\"\nagent_token = \"{AGENT_TOKEN}\"\n\
             [api]\nlisten = [\"{}:7070\"]\n{}\n[balancer]\nlisten = [\"{}\"]\n\
             [alerts]\nwebhooks = [\"http://{}:9000/\"]\n\
             [[topology]]\nkind = \"ctl\"\nip = \"{}\"\n",
            options.ctl_settings,
            self.path("ctl").display(),
            self.ctl.ip(),
            options.api_settings,
            self.balancer(),
            self.network.ip_address(),
            self.ctl.ip(),
        );
        for index in 0..options.workers {
            let more = options
                .worker_settings
                .get(&index)
                .map_or("", String::as_str);
            text += &format!(
                "[[topology]]\nkind = \"worker\"\nip = \"{}\"\nname = \"{}\"\n{}\n",
                self.workers[index].ip(),
                worker_name(index),
                more.replace("{directory}", &self.directory.path().display().to_string()),
            );
        }
        text
    }

    /// Where the controller's API is.
    pub fn api(&self) -> String {
        format!("https://{}:7070", self.ctl.ip())
    }

    /// The certificate of the cluster's authority.
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A path in the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The agent's data directory on a worker.
    pub fn agent_data(&self, index: usize) -> PathBuf {
        self.path(&format!("{}-data", worker_name(index)))
    }

    /// The parent cgroup of a worker's containers.
    pub fn cgroup(&self, index: usize) -> String {
        self.workers[index].cgroup()
    }

    /// Where the balancer answers.
    pub fn balancer(&self) -> SocketAddr {
        SocketAddr::new(self.ctl.ip().into(), 80)
    }

    /// Somebody on the cluster's network.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Alerts that the webhook was sent.
    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// The virtual hosts' network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The controller's host.
    pub fn ctl(&self) -> &Host {
        &self.ctl
    }

    /// A worker's host, by index from 0.
    pub fn worker(&self, index: usize) -> &Host {
        &self.workers[index]
    }

    /// The index of the worker of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn index_of(&self, name: &str) -> usize {
        let mut workers = self.workers.iter();
        let index = workers.position(|worker| worker.name() == name);
        index.expect("it is a worker of the cluster")
    }

    /// A command that runs on the controller's host.
    ///
    /// # Panics
    /// If its power is cut.
    pub fn on_ctl(&self, program: impl AsRef<OsStr>) -> Command {
        self.ctl
            .command(program)
            .expect("the controller's host is on")
    }

    /// A command that runs on a worker.
    ///
    /// # Panics
    /// If its power is cut.
    pub fn on_worker(&self, index: usize, program: impl AsRef<OsStr>) -> Command {
        self.workers[index]
            .command(program)
            .expect("the worker is on")
    }

    /// A command that runs beside the hosts, on their network.
    ///
    /// # Panics
    /// If the network is gone.
    pub fn on_network(&self, program: impl AsRef<OsStr>) -> Command {
        self.network.command(program).expect("the network is there")
    }

    /// Starts the controller.
    pub fn start_ctld(&mut self) {
        let mut command = self.on_ctl(programs().join("tucano_ctld"));
        command.arg("--config").arg(self.path("ctl.toml"));
        self.spawn("ctld", command);
    }

    /// Starts the agent of a worker.
    pub fn start_agent(&mut self, index: usize) {
        self.start_agent_with(index, &[]);
    }

    /// Starts the agent of a worker, with further variables in its environment.
    pub fn start_agent_with(&mut self, index: usize, variables: &[(&str, &str)]) {
        let settings = self.path(&format!("{}.toml", worker_name(index)));
        let mut command = match self.agents.get(&index) {
            Some(run) => run(&self.workers[index], &settings),
            None => {
                let mut command = self.on_worker(index, programs().join("tucano_agentd"));
                command.arg("--config").arg(settings);
                command
            }
        };
        command.envs(variables.iter().copied());
        self.spawn(&agent_name(index), command);
    }

    /// Waits until a worker's agent has ended by itself.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_for_agents_end(&mut self, index: usize) {
        let mut child = self
            .running
            .remove(&agent_name(index))
            .expect("it was started");
        self.wait("the agent's end", || {
            child.try_wait().expect("it is a child").map(drop)
        });
    }

    fn spawn(&mut self, name: &str, mut command: Command) {
        let path = self.path(&format!("{name}.log"));
        let log = File::options()
            .append(true)
            .create(true)
            .open(path)
            .expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.running.insert(name.to_owned(), child);
    }

    /// kill -9 of the controller.
    pub fn kill_ctld(&mut self) {
        self.kill("ctld");
    }

    /// kill -9 of a worker's agent.
    pub fn kill_agent(&mut self, index: usize) {
        self.kill(&agent_name(index));
    }

    fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).expect("it was started");
        // The program itself, not its way into the host: that one ends when the program is gone, with its locks.
        for pid in children_of(child.id()) {
            kill_process(pid, Signal::KILL).expect("it can be killed");
        }
        child.wait().expect("it ends");
    }

    /// kill -9 of the balancer.
    ///
    /// # Panics
    /// If none runs.
    pub fn kill_balancer(&self) {
        self.balancer_process().expect("a balancer runs").kill();
    }

    /// The balancer that holds the lock of its host, if it lives.
    pub fn balancer_process(&self) -> Option<Process> {
        let lock = fs::read_to_string(self.path("ctl/balancer.lock")).ok()?;
        let pid: i32 = lock.trim().parse().ok()?;
        let on_host = processes::of_host(self.ctl.pid().ok()?);
        on_host
            .into_iter()
            .find(|process| process.pid_on_host == pid && !process.arguments.is_empty())
    }

    /// The processes of worker `index` (from 0), those of its containers too.
    ///
    /// # Panics
    /// If the worker is down.
    pub fn running_on(&self, index: usize) -> Vec<Process> {
        processes::of_host(self.workers[index].pid().expect("the worker is up"))
    }

    /// How many processes with this command line run on all workers.
    pub fn count_running(&self, arguments: &str) -> usize {
        let of_worker = |index| {
            let running = self.running_on(index).into_iter();
            running.filter(|it| it.arguments == arguments).count()
        };
        (0..self.workers.len()).map(of_worker).sum()
    }

    /// Power cut on a worker: everything on it dies at once.
    pub fn power_off(&mut self, index: usize) {
        self.workers[index].power_off().expect("the host dies");
        if let Some(mut child) = self.running.remove(&agent_name(index)) {
            child.wait().expect("it ends");
        }
    }

    /// Power cut on the controller's host: the controller and the balancer die at once.
    ///
    /// # Panics
    /// If the host does not die.
    pub fn power_off_ctl(&mut self) {
        self.ctl.power_off().expect("the host dies");
        if let Some(mut child) = self.running.remove("ctld") {
            child.wait().expect("it ends");
        }
    }

    /// Boots the controller's host again and starts the controller.
    ///
    /// # Panics
    /// If the host does not boot.
    pub fn boot_ctl(&mut self) {
        let options = HostOptions::new("ctl", self.ctl.ip());
        self.ctl = self.network.boot(options).expect("the host boots");
        self.start_ctld();
    }

    /// Boots a worker again and starts its agent.
    pub fn boot(&mut self, index: usize) {
        let options = HostOptions {
            name: worker_name(index),
            ip: self.workers[index].ip(),
        };
        self.workers[index] = self.network.boot(options).expect("the host boots");
        self.start_agent(index);
    }

    /// Runs curl on the cluster's network, against the API, with the token. `path` begins with `/`.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Answer {
        let output = self
            .on_network("curl")
            .args(["-sS", "--max-time", "120", "-w", "\n%{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
            .arg("--cacert")
            .arg(self.ca_file())
            .args(arguments)
            .arg(format!("{}{path}", self.api()))
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        let status = status.parse().unwrap_or(0);
        let body = format!("{body}{}", String::from_utf8_lossy(&output.stderr));
        Answer { status, body }
    }

    /// Deploys by curl: an archive and a configuration text. `query` such as `?wait=true`.
    pub fn deploy(&self, config: &str, archive: &Path, query: &str) -> Answer {
        let file = self.path("service.toml");
        fs::write(&file, config).expect("the configuration file");
        let config = format!("config=@{}", file.display());
        let image = format!("image=@{}", archive.display());
        self.curl(
            &["-F", &config, "-F", &image],
            &format!("/v1/services{query}"),
        )
    }

    /// Deploys and expects that all processes become healthy.
    ///
    /// # Panics
    /// If they do not.
    pub fn deploy_healthy(&self, config: &str, archive: &Path) {
        let answer = self.deploy(config, archive, "?wait=true&timeout=60s");
        assert!(
            matches!(answer.status, 200 | 201),
            "{answer:?}\n{}",
            self.logs()
        );
    }

    /// `PATCH` of a service, waiting for health.
    ///
    /// # Panics
    /// If it is not answered with 200.
    pub fn patch(&self, service: &str, body: &str) {
        let answer = self.curl(
            &["-X", "PATCH", "-d", body],
            &format!("/v1/services/{service}?wait=true"),
        );
        assert_eq!(answer.status, 200, "{answer:?}\n{}", self.logs());
    }

    /// GET of a path of the API, as `T`; `None` when it cannot be had now.
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let url = format!("{}{path}", self.api());
        let request = self
            .user
            .client()
            .get(url)
            .bearer_auth(TOKEN)
            .timeout(Duration::from_secs(2));
        let answer = self.user.run(async move { answer(request).await }).ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// The controller's state.
    pub fn state(&self) -> Option<State> {
        self.get("/v1/state")
    }

    /// The processes of a service; empty when the service or the controller is not there.
    pub fn processes(&self, service: &str) -> Vec<ProcessView> {
        let view: Option<ServiceView> = self.get(&format!("/v1/services/{service}"));
        view.map(|view| view.active.processes).unwrap_or_default()
    }

    /// Healthy processes of a service by node, draining ones not counted.
    pub fn placement(&self, service: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for process in self
            .processes(service)
            .iter()
            .filter(|process| is_settled(process))
        {
            *counts.entry(process.node.to_string()).or_default() += 1;
        }
        counts
    }

    /// Waits until a service has exactly `count` processes, all healthy and routed.
    pub fn wait_for_healthy(&self, service: &str, count: usize) -> Vec<ProcessView> {
        let what = format!("{count} healthy processes of {service}");
        self.wait(&what, || {
            let processes = self.processes(service);
            (processes.len() == count && processes.iter().all(is_settled)).then_some(processes)
        })
    }

    /// Waits until exactly `count` workers are alive.
    pub fn wait_for_alive(&self, count: usize) {
        self.wait(&format!("{count} alive workers"), || {
            (self.state()?.alive_nodes.len() == count).then_some(())
        });
    }

    /// Waits for a condition; the programs' logs are part of the message when it never comes.
    ///
    /// # Panics
    /// If it never comes.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        let waiting = std::panic::AssertUnwindSafe(|| wait_for(what, self.patience, condition));
        std::panic::catch_unwind(waiting).unwrap_or_else(|_| {
            panic!(
                "waited in vain for {what}; state: {:#?}\n{}",
                self.state(),
                self.logs()
            )
        })
    }

    /// GET through the balancer for a service's default host name.
    pub fn request(&self, service: &str, path: &str) -> Result<Answer, String> {
        self.user
            .get(self.balancer(), &format!("{service}.localhost"), path)
    }

    /// Names of the processes that answered `count` requests in a row through the balancer.
    ///
    /// # Panics
    /// If a request is not answered with 200.
    pub fn answering(&self, service: &str, count: usize) -> BTreeSet<String> {
        (0..count)
            .map(|_| {
                let answer = self.request(service, "/").expect("the balancer answers");
                assert_eq!(answer.status, 200, "{answer:?}\n{}", self.logs());
                field(&answer.body, "process")
            })
            .collect()
    }

    /// Standard output of a command on a worker.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn output_on(&self, index: usize, program: &str, arguments: &[&str]) -> String {
        let output = self.on_worker(index, program).args(arguments).output();
        String::from_utf8_lossy(&output.expect("the command runs").stdout).into_owned()
    }

    /// The last lines of every program's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.directory.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(60)..].join("\n");
                text += &format!("--- {}\n{last}\n", path.display());
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in self.workers.iter().chain([&self.ctl]) {
            if let Err(error) = host.power_off() {
                eprintln!("{error}");
            }
        }
        for child in self.running.values_mut() {
            drop(child.wait());
        }
    }
}

fn mount_disk(mut mount: Command, size: &str, data: &Path) {
    fs::create_dir(data).expect("the data directory");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "data"]);
    let status = mount.arg(data).status().expect("mount runs");
    assert!(status.success(), "a disk of {size} at {}", data.display());
}

fn is_settled(process: &ProcessView) -> bool {
    process.report.state == ProcessState::Healthy && process.routed && !process.draining
}

/// The value of `key=value` in a sample service's answer.
pub fn field(body: &str, key: &str) -> String {
    let find = |word: &str| word.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    body.split_whitespace().find_map(find).unwrap_or_default()
}

/// Name of a worker, by index from 0: `w1`, `w2`…
pub fn worker_name(index: usize) -> String {
    format!("w{}", index + 1)
}

fn agent_name(index: usize) -> String {
    format!("agent-{}", worker_name(index))
}

fn ctl_ip(network: &Network) -> Ipv4Addr {
    network.subnet().address(2)
}

fn worker_ip(network: &Network, index: usize) -> Ipv4Addr {
    network
        .subnet()
        .address(11 + u32::try_from(index).expect("few workers"))
}

fn children_of(pid: u32) -> Vec<Pid> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let parse = |pid: &str| Pid::from_raw(pid.parse().ok()?);
    children.split_whitespace().filter_map(parse).collect()
}
