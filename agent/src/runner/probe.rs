//! Asks a running process whether it is well.

use std::{net::SocketAddrV4, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tucano_api::service::{Health as Config, Probe};
use tucano_oci_runtime::supervisor;

use super::lifecycle::Health;
use crate::errors::innermost;

/// Failures in a row after which a healthy process counts as unhealthy: one may be chance.
const FAILURES_TO_UNHEALTHY: u32 = 3;
/// Time between two probes of a process that has not answered yet, at most: it is to be used as soon as it is ready.
const STARTING_INTERVAL: Duration = Duration::from_millis(100);

/// Probes one process.
#[derive(Debug, Clone)]
pub struct Prober {
    /// Where the process listens.
    pub address: SocketAddrV4,
    /// How it is to be probed.
    pub config: Config,
    /// The container's home directory.
    pub home: PathBuf,
    /// The program that runs commands in containers.
    pub runtime: Arc<PathBuf>,
    /// For HTTP probes.
    pub client: reqwest::Client,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The process's health from now on.
    pub health: Health,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

impl Prober {
    /// Probes until the future is dropped; tells every change of health or reason.
    pub async fn run<F: Future<Output = ()>>(self, from: Health, tell: impl Fn(Finding) -> F) {
        let mut judge = Judge::new(from);
        loop {
            let started = tokio::time::Instant::now();
            if let Some(finding) = judge.judge(self.probe().await) {
                tell(finding).await;
            }
            tokio::time::sleep_until(started + judge.pause(self.config.interval.0)).await;
        }
    }

    /// One probe: nothing if the process is well, else why not.
    pub async fn probe(&self) -> Result<(), String> {
        let limit = self.config.timeout.0;
        let answer = match self.config.probe() {
            Probe::Tcp => timeout(limit, self.connect()).await,
            Probe::Http(path) => timeout(limit, self.get(path)).await,
            // The runtime ends the command itself after the time.
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
        connected.map(drop).map_err(|error| self.refused(&error))
    }

    async fn get(&self, path: &str) -> Result<(), String> {
        let url = format!("http://{}{path}", self.address);
        let response = self.client.get(url).send().await;
        let status = response
            .map_err(|error| self.refused(&innermost(&error)))?
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

    fn refused(&self, error: &dyn std::fmt::Display) -> String {
        format!("port {} does not answer: {error}", self.address.port())
    }
}

/// A client for probes: it follows no redirect, uses no proxy and keeps no connection.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("tucano-probe/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Turns single answers into health.
#[derive(Debug)]
struct Judge {
    last: Finding,
    failures: u32,
}

impl Judge {
    fn new(health: Health) -> Self {
        Self {
            last: Finding {
                health,
                reason: None,
            },
            failures: 0,
        }
    }

    fn judge(&mut self, answer: Result<(), String>) -> Option<Finding> {
        let finding = match answer {
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
                    Health::Healthy if self.failures >= FAILURES_TO_UNHEALTHY => Health::Unhealthy,
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
    fn one_answer_makes_healthy_and_three_failures_in_a_row_unhealthy() {
        let mut judge = Judge::new(Health::Starting);
        let first = judge.judge(failed()).unwrap();
        assert_eq!(
            (first.health, first.reason.as_deref()),
            (Health::Starting, Some("no"))
        );
        assert_eq!(judge.judge(failed()), None, "nothing new");
        assert_eq!(judge.judge(Ok(())).unwrap().health, Health::Healthy);
        for _ in 0..2 {
            assert_eq!(judge.judge(failed()), None);
        }
        assert_eq!(judge.judge(Ok(())), None);
        for _ in 0..2 {
            assert_eq!(judge.judge(failed()), None);
        }
        assert_eq!(judge.judge(failed()).unwrap().health, Health::Unhealthy);
        assert_eq!(judge.judge(Ok(())).unwrap().health, Health::Healthy);
    }

    #[test]
    fn a_starting_process_is_asked_often_a_healthy_one_at_its_interval() {
        let interval = Duration::from_secs(5);
        assert_eq!(
            Judge::new(Health::Starting).pause(interval),
            STARTING_INTERVAL
        );
        assert_eq!(Judge::new(Health::Healthy).pause(interval), interval);
        let short = Duration::from_millis(20);
        assert_eq!(Judge::new(Health::Starting).pause(short), short);
    }

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
    async fn a_port_that_listens_is_well_and_one_that_does_not_is_named() {
        let mut prober = prober("", None).await;
        prober.probe().await.unwrap();
        prober.address.set_port(1);
        let reason = prober.probe().await.unwrap_err();
        assert!(reason.contains("port 1 does not answer"), "{reason}");
    }

    #[tokio::test]
    async fn http_is_judged_by_its_status() {
        let good = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
        prober(good, Some("/x")).await.probe().await.unwrap();
        let bad = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        let reason = prober(bad, Some("/x")).await.probe().await.unwrap_err();
        assert_eq!(reason, "GET /x answered with status 503");
        let reason = prober("", Some("/x")).await.probe().await.unwrap_err();
        assert!(reason.contains("did not answer within 200ms"), "{reason}");
    }
}
