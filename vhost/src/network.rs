//! A network of virtual hosts: the switch and its hosts.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    Error, Host, HostOptions, Subnet, cgroups, links, namespace,
    record::Record,
    settings::Settings,
    spawn::{self, Holder},
};

/// Options of [`Network::create`].
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Prefix of its hosts' cgroups, unique on the machine: lower-case letters, digits, '-'.
    pub name: String,
    /// Directory of its files and of its hosts; created if it is missing. Not below `/run`.
    pub directory: PathBuf,
    /// Its subnet. Networks are isolated from each other, so several may have the same one.
    pub subnet: Subnet,
    /// Whether the network ends with this process, even if that is killed. Otherwise it runs until [`Network::destroy`], or until
    /// the next network is created in the same directory.
    pub dies_with_creator: bool,
}

impl NetworkOptions {
    /// Options for a network in `directory` on the default subnet that ends with its creator.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            directory: directory.into(),
            subnet: Subnet::default(),
            dies_with_creator: true,
        }
    }
}

/// A switch and its hosts. Dropping it cuts the power of all.
#[derive(Debug)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: NetworkOptions,
    program: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Holds the switch's network namespace; `None` once the network is destroyed.
    switch: Option<Holder>,
    hosts: BTreeMap<String, RunningHost>,
    /// Every host that was ever booted, for `/etc/hosts`.
    names: BTreeMap<String, Ipv4Addr>,
    cgroup_parents: Vec<PathBuf>,
    /// Locked while the network runs.
    lock: Option<Flock<File>>,
}

#[derive(Debug)]
struct RunningHost {
    holder: Holder,
    port: String,
}

impl Network {
    /// Creates a switch without hosts, after removing the remains of an earlier network in the same directory.
    ///
    /// # Errors
    /// The caller is not root, a tool is missing, the name or directory is invalid, or a step failed.
    pub fn create(mut options: NetworkOptions) -> Result<Self, Error> {
        check(&mut options)?;
        let program = spawn::program()?;
        let directory = &options.directory;
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        let lock = lock(directory)?;
        Record::clear_leftovers(directory)?;
        let cgroup_parents = cgroups::own()?;
        let mut command = Command::new(&program);
        command.args(["switch", &options.dies_with_creator.to_string()]);
        let switch = Holder::start("the switch", command, options.dies_with_creator)?;
        let state = State {
            switch: Some(switch),
            cgroup_parents,
            lock: Some(lock),
            ..State::default()
        };
        let inner = Inner {
            options,
            program,
            state: Mutex::new(state),
        };
        let network = Self {
            inner: Arc::new(inner),
        };
        network.inner.save(&network.inner.state())?;
        network.ip(&links::switch_script(network.inner.options.subnet))?;
        Ok(network)
    }

    /// Boots a host and waits until its init runs. Its directory is kept, so booting a host again after [`Host::power_off`] is a
    /// reboot.
    ///
    /// # Errors
    /// The name or address is invalid or in use, or a step failed.
    pub fn boot(&self, options: HostOptions) -> Result<Host, Error> {
        let HostOptions { name, ip } = options;
        self.inner.start(&name, ip)?;
        if let Err(error) = self.inner.connect(&name, ip) {
            self.inner.power_off(&name)?;
            return Err(error);
        }
        Ok(Host::new(self.inner.clone(), name, ip))
    }

    /// The switch's address, at which hosts reach its namespace.
    pub fn ip_address(&self) -> Ipv4Addr {
        self.inner.options.subnet.gateway()
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.inner.options.subnet
    }

    /// A command that runs `program` in the switch's network namespace, from which every host is reachable. All other namespaces
    /// are the caller's own.
    ///
    /// # Errors
    /// The network is destroyed.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, Error> {
        Ok(self
            .inner
            .in_network_of(self.inner.state().switch()?, program))
    }

    /// Runs `work` on a new thread in the switch's network namespace; threads that it starts, such as those of an asynchronous
    /// runtime, inherit the namespace.
    ///
    /// # Errors
    /// The network is destroyed, or the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let switch = self.inner.state().switch()?;
        namespace::enter(switch, work)
    }

    /// Listens in the switch's network namespace; hosts reach it at [`Network::ip_address`]. Any thread may use the listener.
    ///
    /// # Errors
    /// The address cannot be bound, or the namespace cannot be entered.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, Error> {
        self.enter(|| TcpListener::bind(address))?
            .map_err(|source| Error::Listen { address, source })
    }

    /// Drops all packets between two hosts. Both still reach all others.
    ///
    /// # Errors
    /// A host is not running, or nft(8) is missing or failed.
    pub fn cut(&self, a: &Host, b: &Host) -> Result<(), Error> {
        self.set_cut(a, b, true)
    }

    /// Reverts [`Network::cut`].
    ///
    /// # Errors
    /// A host is not running, or nft(8) is missing or failed.
    pub fn heal(&self, a: &Host, b: &Host) -> Result<(), Error> {
        self.set_cut(a, b, false)
    }

    /// Cuts the power of every host and removes everything except the hosts' directories.
    ///
    /// # Errors
    /// A process or cgroup cannot be removed.
    pub fn destroy(self) -> Result<(), Error> {
        self.inner.destroy()
    }

    fn ip(&self, script: &str) -> Result<(), Error> {
        let switch = self.inner.state().switch()?;
        links::run_script(self.inner.ip_batch(switch), script)
    }

    fn set_cut(&self, a: &Host, b: &Host, cut: bool) -> Result<(), Error> {
        check_tool("nft", "nftables")?;
        let state = self.inner.state();
        let script = links::cut_script(
            &state.host(a.name())?.port,
            &state.host(b.name())?.port,
            cut,
        );
        let mut command = self.inner.in_network_of(state.switch()?, "nft");
        command.args(["-f", "-"]);
        links::run_script(command, &script)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.inner.destroy() {
            eprintln!("tucano_vhost: {error}");
        }
    }
}

impl Inner {
    pub(crate) fn host_directory(&self, name: &str) -> PathBuf {
        self.options.directory.join("hosts").join(name)
    }

    pub(crate) fn cgroup_of(&self, host: &str) -> String {
        format!("{}-{host}", self.options.name)
    }

    /// The pid of a host's init in this process's pid namespace.
    pub(crate) fn pid_of(&self, host: &str) -> Result<i32, Error> {
        Ok(self.state().host(host)?.holder.process.pid)
    }

    pub(crate) fn is_up(&self, host: &str) -> bool {
        self.state()
            .host(host)
            .is_ok_and(|running| running.holder.process.is_alive())
    }

    pub(crate) fn set_link(&self, host: &str, up: bool) -> Result<(), Error> {
        let state = self.state();
        let port = &state.host(host)?.port;
        let script = format!("link set {port} {}\n", if up { "up" } else { "down" });
        links::run_script(self.ip_batch(state.switch()?), &script)
    }

    pub(crate) fn power_off(&self, host: &str) -> Result<(), Error> {
        let mut state = self.state();
        let running = state
            .hosts
            .remove(host)
            .ok_or_else(|| Error::NotUp(host.to_owned()))?;
        running.holder.kill()?;
        // The kernel removes namespaces asynchronously, and the port's name must be free for the next boot. The port may already
        // be gone, so a failure to delete it is ignored.
        let script = format!("link delete {}\n", running.port);
        match links::run_script(self.ip_batch(state.switch()?), &script) {
            Ok(()) | Err(Error::Command { .. }) => {}
            Err(error) => return Err(error),
        }
        cgroups::remove_named(&state.cgroup_parents, &self.cgroup_of(host))?;
        self.save(&state)
    }

    /// A command in the mount, pid, uts, ipc and network namespaces of a host.
    pub(crate) fn host_command(
        &self,
        host: &str,
        program: impl AsRef<OsStr>,
    ) -> Result<Command, Error> {
        let mut command = Command::new(&self.program);
        command
            .args(["run", &self.pid_of(host)?.to_string()])
            .arg(program);
        Ok(command)
    }

    fn start(&self, name: &str, ip: Ipv4Addr) -> Result<(), Error> {
        check_name(name)?;
        let mut state = self.state();
        self.check_address(&state, name, ip)?;
        state.names.insert(name.to_owned(), ip);
        self.write_hosts(&state.names)?;
        let holder = self.start_init(name)?;
        let port = format!("v{}", self.options.subnet.host_part(ip));
        state
            .hosts
            .insert(name.to_owned(), RunningHost { holder, port });
        self.save(&state)
    }

    fn start_init(&self, name: &str) -> Result<Holder, Error> {
        let options = &self.options;
        let directory = self.host_directory(name);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let settings = Settings {
            name: name.to_owned(),
            directory,
            etc_hosts: self.etc_hosts(),
            dies_with_creator: options.dies_with_creator,
        };
        let settings = serde_json::to_string(&settings).map_err(|error| Error::NotReady {
            what: format!("the host {name}"),
            reason: error.to_string(),
        })?;
        let mut command = Command::new(&self.program);
        command.args(["host", &settings]);
        Holder::start(
            &format!("the host {name}"),
            command,
            options.dies_with_creator,
        )
    }

    fn connect(&self, name: &str, ip: Ipv4Addr) -> Result<(), Error> {
        let state = self.state();
        let running = state.host(name)?;
        let pid = running.holder.process.pid;
        let switch_side = links::port_script(&running.port, ip, pid);
        links::run_script(self.ip_batch(state.switch()?), &switch_side)?;
        let host_side = links::host_script(self.options.subnet, ip);
        links::run_script(self.ip_batch(pid), &host_side)
    }

    fn in_network_of(&self, pid: i32, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["net", &pid.to_string()]).arg(program);
        command
    }

    fn ip_batch(&self, pid: i32) -> Command {
        let mut command = self.in_network_of(pid, "ip");
        command.args(["-batch", "-"]);
        command
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic the state is still usable: the record lists every process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, state: &State) -> Result<(), Error> {
        self.record(state).save(&self.options.directory)
    }

    fn record(&self, state: &State) -> Record {
        let hosts = state.hosts.values().map(|running| running.holder.process);
        Record {
            processes: state
                .switch
                .iter()
                .map(|switch| switch.process)
                .chain(hosts)
                .collect(),
            cgroup_parents: state.cgroup_parents.clone(),
            cgroup_prefix: format!("{}-", self.options.name),
        }
    }

    fn destroy(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.switch.is_none() {
            return Ok(());
        }
        self.record(&state).clear()?;
        state.hosts.clear();
        state.switch = None;
        let record = self.options.directory.join("network.json");
        fs::remove_file(&record).map_err(Error::file("remove", &record))?;
        state.lock = None;
        Ok(())
    }

    fn etc_hosts(&self) -> PathBuf {
        self.options.directory.join("etc-hosts")
    }

    /// Written in place: running hosts have the file mounted, and would not see a replacement.
    fn write_hosts(&self, names: &BTreeMap<String, Ipv4Addr>) -> Result<(), Error> {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, ip) in names {
            text += &format!("{ip} {name}\n");
        }
        let path = self.etc_hosts();
        let mut file = File::create(&path).map_err(Error::file("write", &path))?;
        file.write_all(text.as_bytes())
            .map_err(Error::file("write", &path))
    }

    fn check_address(&self, state: &State, name: &str, ip: Ipv4Addr) -> Result<(), Error> {
        let refuse = |reason| {
            Err(Error::InvalidAddress {
                name: name.to_owned(),
                ip,
                reason,
            })
        };
        if state.hosts.contains_key(name) {
            return Err(Error::AlreadyUp(name.to_owned()));
        }
        if !self.options.subnet.has_host(ip) {
            return refuse("it is not an address for hosts of the network's subnet");
        }
        if state
            .names
            .iter()
            .any(|(other, taken)| other != name && *taken == ip)
        {
            return refuse("another host has it");
        }
        Ok(())
    }
}

impl State {
    fn host(&self, name: &str) -> Result<&RunningHost, Error> {
        self.hosts
            .get(name)
            .ok_or_else(|| Error::NotUp(name.to_owned()))
    }

    fn switch(&self) -> Result<i32, Error> {
        let switch = self
            .switch
            .as_ref()
            .ok_or_else(|| Error::NotUp("switch".to_owned()))?;
        Ok(switch.process.pid)
    }
}

/// Checks the options, and makes the directory absolute for inits and records.
fn check(options: &mut NetworkOptions) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    check_tool("ip", "iproute2")?;
    check_name(&options.name)?;
    options.directory =
        std::path::absolute(&options.directory).map_err(Error::file("find", &options.directory))?;
    let hidden = ["/run", "/var/run"]
        .iter()
        .any(|run| options.directory.starts_with(run));
    if hidden {
        return Err(Error::Hidden(options.directory.clone()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::InvalidName(name.to_owned()))
}

fn check_tool(tool: &'static str, package: &'static str) -> Result<(), Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if found {
        Ok(())
    } else {
        Err(Error::MissingTool { tool, package })
    }
}

/// Locks the directory: two creators in it would remove each other's processes as leftovers.
fn lock(directory: &Path) -> Result<Flock<File>, Error> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::InUse(directory.to_owned()),
        errno => Error::file("lock", &path)(errno.into()),
    })
}
