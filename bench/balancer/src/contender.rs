//! The proxies, tuned as their manuals say, with connections to the process kept open.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tucano_api::routes::{Endpoint, RouteTable, ServiceRoute};

use crate::{load::HOST, origin::Origin, process::Process};

/// A running proxy, or the process itself.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<Process>,
    /// Its files, and a controller that never answers.
    _files: Option<(TempDir, Option<UnixListener>)>,
}

/// How long a proxy may take to listen; under valgrind it is slow.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const HAPROXY: &str = "HAProxy";

impl Contender {
    /// All that are installed, the process itself first.
    pub(crate) fn start_all(
        ours: &[(String, PathBuf)],
        origin: &Origin,
        threads: usize,
    ) -> Result<Vec<Self>> {
        let mut all = vec![Self {
            name: "direct".to_owned(),
            address: origin.address,
            process: None,
            _files: None,
        }];
        for (name, program) in ours {
            all.push(Self::balancer(
                name,
                program,
                &mut Command::new(program),
                origin,
                threads,
            )?);
        }
        for (name, program, start) in [
            (
                HAPROXY,
                "haproxy",
                Self::haproxy as fn(&Path, &Origin, usize) -> Result<Self>,
            ),
            ("nginx", "nginx", Self::nginx),
        ] {
            match find(program) {
                Some(program) => all.push(start(&program, origin, threads)?),
                None => eprintln!("bench: {name} is not installed: left out"),
            }
        }
        Ok(all)
    }

    /// Ours: `program`, run by `command`. It takes its routes from its cache, as long as no controller answers.
    pub(crate) fn balancer(
        name: &str,
        program: &Path,
        command: &mut Command,
        origin: &Origin,
        threads: usize,
    ) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let file = |name: &str| files.path().join(name);
        fs::write(file("routes.json"), serde_json::to_vec(&routes(origin)?)?)?;
        let controller = UnixListener::bind(file("ctl.sock"))?;
        let address = free_address()?;
        command
            .args([
                "--listen",
                &address.to_string(),
                "--max-connections",
                "9000",
            ])
            .args([
                "--max-connections-per-address",
                "9000",
                "--upstream-idle",
                "1000",
            ])
            .arg("--follow")
            .arg(file("ctl.sock"))
            .arg("--routes")
            .arg(file("routes.json"))
            .stderr(Stdio::null());
        if has_threads(program)? {
            command.args(["--threads", &threads.to_string()]);
        } else {
            // A program of before that option has a runtime that asks for its number of threads.
            command.env("TOKIO_WORKER_THREADS", threads.to_string());
        }
        Self::started(name, address, command, (files, Some(controller)))
    }

    fn haproxy(program: &Path, origin: &Origin, threads: usize) -> Result<Self> {
        let (files, address) = (tempfile::tempdir()?, free_address()?);
        let config = files.path().join("haproxy.cfg");
        let text = format!(
            "global\n    nbthread {threads}\n    maxconn 9000\n\
             defaults\n    mode http\n    timeout connect 5s\n    timeout client 75s\n    timeout server 60s\n    \
             timeout http-keep-alive 75s\n    option http-keep-alive\n    http-reuse always\n    option forwardfor\n\
             frontend clients\n    bind {address}\n    default_backend processes\n\
             backend processes\n    server process {} pool-max-conn 1000\n",
            origin.address
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command
            .arg("-db")
            .arg("-f")
            .arg(config)
            .stderr(Stdio::null());
        Self::started(HAPROXY, address, &mut command, (files, None))
    }

    /// Several threads are several processes; only one is measured.
    fn nginx(program: &Path, origin: &Origin, threads: usize) -> Result<Self> {
        if threads > 1 {
            eprintln!("bench: nginx is measured with one worker");
        }
        let (files, address) = (tempfile::tempdir()?, free_address()?);
        let config = files.path().join("nginx.conf");
        let directory = files.path().display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log /dev/null crit;\n\
             events {{ worker_connections 18000; }}\n\
             http {{\n    access_log off;\n    keepalive_requests 1000000000;\n    keepalive_timeout 75s;\n    \
             client_body_temp_path {directory}/body;\n    proxy_temp_path {directory}/proxy;\n    \
             fastcgi_temp_path {directory}/f;\n    uwsgi_temp_path {directory}/u;\n    scgi_temp_path {directory}/s;\n    \
             upstream process {{ server {}; keepalive 1000; keepalive_requests 1000000000; }}\n    \
             server {{\n        listen {address};\n        location / {{\n            proxy_pass http://process;\n            \
             proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            proxy_set_header Host $host;\n            \
             proxy_set_header X-Forwarded-For $remote_addr;\n            proxy_request_buffering off;\n            client_max_body_size 0;\n        }}\n    }}\n}}\n",
            origin.address
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        let log = files.path().join("start.log");
        command.arg("-c").arg(config).arg("-e").arg(log);
        command.stderr(Stdio::null());
        Self::started("nginx", address, &mut command, (files, None))
    }

    /// CPU time of the proxy so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.process.as_ref().map_or(Ok(0.0), Process::cpu_seconds)
    }

    fn started(
        name: &str,
        address: SocketAddr,
        command: &mut Command,
        files: (TempDir, Option<UnixListener>),
    ) -> Result<Self> {
        let mut process = Process::start(command)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if process.has_ended() || Instant::now() > deadline {
                bail!("{name} does not listen: {command:?}");
            }
            std::thread::yield_now();
        }
        Ok(Self {
            name: name.to_owned(),
            address,
            process: Some(process),
            _files: Some(files),
        })
    }
}

/// Whether a balancer's program knows `--threads`.
fn has_threads(program: &Path) -> Result<bool> {
    let help = Command::new(program).arg("--help").output()?;
    Ok(memchr::memmem::find(&help.stdout, b"--threads").is_some())
}

fn routes(origin: &Origin) -> Result<RouteTable> {
    let endpoint = Endpoint {
        process: "bench-0".parse()?,
        node: "here".parse()?,
        address: origin.address,
        weight: 1,
        draining: false,
    };
    Ok(RouteTable {
        version: "1".to_owned(),
        services: vec![ServiceRoute {
            service: "bench".parse()?,
            hosts: vec![HOST.to_owned()],
            path_prefix: None,
            endpoints: vec![endpoint],
        }],
    })
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let socket = TcpListener::bind("127.0.0.1:0")?;
    Ok(socket.local_addr()?)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let paths = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut candidates = paths.map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_file())
}

/// valgrind's program.
pub(crate) fn valgrind() -> Result<PathBuf> {
    find("valgrind").context("valgrind is not installed (Debian's package valgrind)")
}
