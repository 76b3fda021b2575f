//! Health probes of running processes: TCP, HTTP, or a command in the container.

use std::{net::SocketAddrV4, path::PathBuf, sync::Arc, time::Duration};

use reqwest::header::HOST;
use tokio::{net::TcpStream, time::timeout};
use tucano_api::service::{Health as Config, Probe, ServiceConfig};
use tucano_oci_runtime::supervisor;

use super::lifecycle::Health;
use crate::errors::root_cause;

/// Consecutive failures after which a healthy process becomes unhealthy.
const UNHEALTHY_AFTER: u32 = 3;
/// Longest time between two probes of a starting process, so that it gets requests as soon as it is ready.
const STARTING_INTERVAL: Duration = Duration::from_millis(100);

/// Probes one process.
#[derive(Debug, Clone)]
pub struct Prober {
    /// Address of the probed port.
    pub address: SocketAddrV4,
    /// `Host` of HTTP probes, else the address: many frameworks refuse requests for hosts that they do not know.
    pub host: Option<String>,
    /// The service's probe.
    pub config: Config,
    /// The container's home directory.
    pub home: PathBuf,
    /// The container runtime, which runs commands in containers.
    pub runtime: Arc<PathBuf>,
    /// Client of HTTP probes.
    pub client: reqwest::Client,
}

/// A process's health after a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The health.
    pub health: Health,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

impl Prober {
    /// Probes until the future is dropped; passes every change of health or reason to `report`.
    pub async fn run<F: Future<Output = ()>>(self, from: Health, report: impl Fn(Finding) -> F) {
        let mut health = HealthTracker::new(from);
        loop {
            let started = tokio::time::Instant::now();
            if let Some(finding) = health.record(self.probe().await) {
                report(finding).await;
            }
            tokio::time::sleep_until(started + health.pause(self.config.interval.0)).await;
        }
    }

    /// One probe.
    ///
    /// # Errors
    /// A sentence that says why the process is not healthy.
    pub async fn probe(&self) -> Result<(), String> {
        let limit = self.config.timeout.0;
        let answer = match self.config.probe() {
            Probe::Tcp => timeout(limit, self.connect()).await,
            Probe::Http(path) => timeout(limit, self.get(path)).await,
            // The runtime enforces the time limit of the command.
            Probe::Exec(command) => Ok(self.exec(command.to_vec(), limit).await),
        };
        answer.unwrap_or_else(|_| {
            Err(format!(
                "port {} did not answer within {}",
                self.address.port(),
                self.config.timeout
            ))
        })
    }

    async fn connect(&self) -> Result<(), String> {
        let connected = TcpStream::connect(self.address).await;
        connected.map(drop).map_err(|error| self.no_answer(&error))
    }

    async fn get(&self, path: &str) -> Result<(), String> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.get(url);
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        let status = request
            .send()
            .await
            .map_err(|error| self.no_answer(&root_cause(&error)))?
            .status();
        if status.as_u16() < 400 {
            return Ok(());
        }
        Err(format!(
            "GET {path} answered with status {}",
            status.as_u16()
        ))
    }

    async fn exec(&self, command: Vec<String>, limit: Duration) -> Result<(), String> {
        let (program, home) = (Arc::clone(&self.runtime), self.home.clone());
        let name = command.first().cloned().unwrap_or_default();
        let ran =
            tokio::task::spawn_blocking(move || supervisor::exec(&program, &home, &command, limit));
        match ran.await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(code)) => Err(format!("the probe {name} ended with exit code {code}")),
            Ok(Err(error)) => Err(format!("the probe {name} could not be run: {error}")),
            Err(error) => Err(format!("the probe {name} could not be run: {error}")),
        }
    }

    fn no_answer(&self, error: &dyn std::fmt::Display) -> String {
        format!("port {} does not answer: {error}", self.address.port())
    }
}

/// `Host` of a service's HTTP probes: the configured one, else the first of its hosts.
pub fn host_of(config: &ServiceConfig) -> Option<String> {
    let configured = config.health.host.as_ref();
    configured.or(config.hosts.first()).cloned()
}

/// The client of HTTP probes: no redirects, no proxy, a new connection each time.
///
/// # Errors
/// The TLS provider cannot be initialised.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("tucano-probe/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Derives a process's health from the results of its probes.
#[derive(Debug)]
struct HealthTracker {
    last: Finding,
    failures: u32,
}

impl HealthTracker {
    fn new(health: Health) -> Self {
        Self {
            last: Finding {
                health,
                reason: None,
            },
            failures: 0,
        }
    }

    fn record(&mut self, result: Result<(), String>) -> Option<Finding> {
        let finding = match result {
            Ok(()) => {
                self.failures = 0;
                Finding {
                    health: Health::Healthy,
                    reason: None,
                }
            }
            Err(reason) => {
                self.failures += 1;
                let health = match self.last.health {
                    Health::Healthy if self.failures >= UNHEALTHY_AFTER => Health::Unhealthy,
                    Health::Healthy => return None,
                    other => other,
                };
                Finding {
                    health,
                    reason: Some(reason),
                }
            }
        };
        if finding == self.last {
            return None;
        }
        self.last = finding.clone();
        Some(finding)
    }

    fn pause(&self, interval: Duration) -> Duration {
        match self.last.health {
            Health::Starting => interval.min(STARTING_INTERVAL),
            Health::Healthy | Health::Unhealthy => interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tucano_api::units::Span;

    use super::*;

    fn failed() -> Result<(), String> {
        Err("no".into())
    }

    #[test]
    fn one_success_makes_healthy_and_three_consecutive_failures_unhealthy() {
        let mut health = HealthTracker::new(Health::Starting);
        let first = health.record(failed()).unwrap();
        assert_eq!(
            (first.health, first.reason.as_deref()),
            (Health::Starting, Some("no"))
        );
        assert_eq!(health.record(failed()), None, "nothing new");
        assert_eq!(health.record(Ok(())).unwrap().health, Health::Healthy);
        for _ in 0..2 {
            assert_eq!(health.record(failed()), None);
        }
        assert_eq!(health.record(Ok(())), None);
        for _ in 0..2 {
            assert_eq!(health.record(failed()), None);
        }
        assert_eq!(health.record(failed()).unwrap().health, Health::Unhealthy);
        assert_eq!(health.record(Ok(())).unwrap().health, Health::Healthy);
    }

    #[test]
    fn a_starting_process_is_probed_more_often_than_a_healthy_one() {
        let interval = Duration::from_secs(5);
        assert_eq!(
            HealthTracker::new(Health::Starting).pause(interval),
            STARTING_INTERVAL
        );
        assert_eq!(
            HealthTracker::new(Health::Healthy).pause(interval),
            interval
        );
        let short = Duration::from_millis(20);
        assert_eq!(HealthTracker::new(Health::Starting).pause(short), short);
    }

    /// A prober of a server that sends `answer` to each request, or never answers if it is empty.
    async fn prober(answer: &'static str, http: Option<&str>) -> Prober {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut client, _)) = listener.accept().await {
                if answer.is_empty() {
                    silent.push(client);
                } else {
                    let mut request = [0; 1024];
                    assert!(client.read(&mut request).await.unwrap() > 0);
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        tucano_tls::install_provider();
        Prober {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            host: None,
            config: Config {
                http: http.map(str::to_owned),
                timeout: Span::millis(200),
                ..Config::default()
            },
            home: PathBuf::new(),
            runtime: Arc::new(PathBuf::new()),
            client: client().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_listening_port_is_healthy_and_a_closed_one_is_named() {
        let mut prober = prober("", None).await;
        prober.probe().await.unwrap();
        prober.address.set_port(1);
        let reason = prober.probe().await.unwrap_err();
        assert!(reason.contains("port 1 does not answer"), "{reason}");
    }

    #[tokio::test]
    async fn http_health_follows_the_status() {
        let good = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
        prober(good, Some("/x")).await.probe().await.unwrap();
        let bad = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        let reason = prober(bad, Some("/x")).await.probe().await.unwrap_err();
        assert_eq!(reason, "GET /x answered with status 503");
        let reason = prober("", Some("/x")).await.probe().await.unwrap_err();
        assert!(reason.contains("did not answer within 200ms"), "{reason}");
    }

    /// The head of the request that the prober sends.
    async fn request_of(change: impl FnOnce(&mut Prober)) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut prober = prober("", Some("/x")).await;
        prober
            .address
            .set_port(listener.local_addr().unwrap().port());
        prober.config.timeout = Span::secs(60);
        change(&mut prober);
        let probe = async { prober.probe().await.unwrap() };
        let serve = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let length = client.read(&mut head).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            client.write_all(answer).await.unwrap();
            String::from_utf8(head[..length].to_vec()).unwrap()
        };
        tokio::join!(probe, serve).1.to_ascii_lowercase()
    }

    #[tokio::test]
    async fn http_probes_carry_the_configured_host_and_headers() {
        let request = request_of(|prober| {
            prober.host = Some("www.example.org".to_owned());
            let headers = &mut prober.config.headers;
            headers.insert("X-Forwarded-Proto".to_owned(), "https".to_owned());
            headers.insert("User-Agent".to_owned(), "other".to_owned());
        });
        let request = request.await;
        assert!(
            request.contains("\r\nhost: www.example.org\r\n"),
            "{request}"
        );
        assert!(
            request.contains("\r\nx-forwarded-proto: https\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nuser-agent: other\r\n"), "{request}");
        assert_eq!(request.matches("user-agent:").count(), 1, "{request}");
        assert_eq!(request.matches("\r\nhost:").count(), 1, "{request}");
        let request = request_of(|_| {}).await;
        assert!(request.contains("\r\nhost: 127.0.0.1:"), "{request}");
    }

    #[test]
    fn the_host_of_probes_is_the_configured_one_or_the_services_first() {
        let config = |more: &str| {
            let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
            tucano_api::settings::parse::<ServiceConfig>("a", &text).unwrap()
        };
        assert_eq!(host_of(&config("")), None);
        let hosts = "hosts = [\"a.example\", \"b.example\"]\n";
        assert_eq!(host_of(&config(hosts)).as_deref(), Some("a.example"));
        let both = format!("{hosts}health = {{ http = \"/\", host = \"c.example\" }}");
        assert_eq!(host_of(&config(&both)).as_deref(), Some("c.example"));
    }
}
