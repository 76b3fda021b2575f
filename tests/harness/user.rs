//! Somebody on the cluster's network: sends requests to the balancer and to the API, and takes alerts.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    net::TcpStream,
    runtime::{self, Runtime},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tucano_api::state::Alert;
use tucano_testkit::wait_until;
use tucano_vhost::Network;

/// Ample for the time-outs of clients and balancer.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body, as text.
    pub body: String,
}

/// Somebody on the network: a runtime whose threads live in the network's namespace, and an HTTP client.
#[derive(Debug)]
pub struct User {
    runtime: Option<Runtime>,
    client: reqwest::Client,
}

impl User {
    /// Somebody on `network`.
    ///
    /// # Panics
    /// If the network's namespace cannot be entered.
    pub fn on(network: &Network) -> Self {
        tucano_tls::install_provider();
        // The runtime's threads are children of the thread that makes it, and so in its namespace.
        let make = || {
            runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
        };
        let runtime = network
            .enter(make)
            .expect("the namespace can be entered")
            .expect("a runtime");
        let client = client().build().expect("a client");
        Self {
            runtime: Some(runtime),
            client,
        }
    }

    /// The client trusts this certificate authority, and no other, from now on.
    ///
    /// # Panics
    /// If it is none.
    pub fn trust(&mut self, pem: &[u8]) {
        let authorities = reqwest::Certificate::from_pem_bundle(pem).expect("a certificate");
        let client = client().tls_certs_only(authorities).build();
        self.client = client.expect("a client");
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until dropped")
    }

    /// The client, for use inside [`User::run`].
    pub fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// Runs `future` on the network and waits for it.
    ///
    /// # Panics
    /// If it panics.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        self.runtime()
            .spawn(async move { drop(send.send(future.await)) });
        receive.recv().expect("the future comes to its end")
    }

    /// GET from the balancer at `address`, for the host name `host`.
    pub fn get(&self, address: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
        let request = self
            .client()
            .get(format!("http://{address}{path}"))
            .header("host", host);
        self.run(async move { answer(request).await })
    }

    /// Requests without end from `clients` clients at once, until stopped.
    pub fn load(&self, address: SocketAddr, host: &str, clients: usize) -> Load {
        let load = Load {
            samples: Arc::default(),
            stop: Arc::default(),
        };
        for _ in 0..clients {
            let (client, host, load) = (self.client(), host.to_owned(), load.clone());
            self.runtime()
                .spawn(async move { load.send(client, address, host).await });
        }
        load
    }

    /// Takes alerts at `address` as a webhook does.
    ///
    /// # Panics
    /// If the address is in use.
    pub fn take_alerts(&self, address: SocketAddr) -> Alerts {
        let alerts = Alerts::default();
        let taken = alerts.clone();
        self.run(async move {
            let listener = tokio::net::TcpListener::bind(address)
                .await
                .expect("the webhook's address is free");
            tokio::spawn(taken.serve(listener));
        });
        alerts
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().timeout(Duration::from_secs(10))
}

/// A TLS connection without a request yet, to a server that this certificate authority vouches for.
pub async fn connect(ca: &[u8], address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca).map_err(std::io::Error::other)?;
    roots.add(root).map_err(std::io::Error::other)?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Sends a request and reads the whole answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status().as_u16();
    let body = response
        .text()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok(Answer { status, body })
}

/// One request of a load.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was sent.
    pub sent: Instant,
    /// When its answer, or the failure, was there.
    pub ended: Instant,
    /// Status and body, or what went wrong.
    pub result: Result<Answer, String>,
}

impl Sample {
    /// Whether it was answered with 200.
    pub fn is_ok(&self) -> bool {
        matches!(&self.result, Ok(answer) if answer.status == 200)
    }
}

/// Requests being sent until [`Load::stop`].
#[derive(Debug, Clone)]
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    async fn send(self, client: reqwest::Client, address: SocketAddr, host: String) {
        while !self.stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            let request = client
                .get(format!("http://{address}/"))
                .header("host", &host);
            let result = answer(request).await;
            self.samples
                .lock()
                .expect("no panic holds it")
                .push(Sample {
                    sent,
                    ended: Instant::now(),
                    result,
                });
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many requests have been answered with 200.
    pub fn successes(&self) -> usize {
        self.samples
            .lock()
            .expect("no panic holds it")
            .iter()
            .filter(|s| s.is_ok())
            .count()
    }

    /// Ends it, and gives every request that was sent, the last one of each client too.
    pub fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        wait_until("the last answers", LAST_ANSWERS, || {
            Arc::strong_count(&self.stop) == 1
        });
        self.samples.lock().expect("no panic holds it").clone()
    }
}

/// Alerts that arrived at a webhook.
#[derive(Debug, Clone, Default)]
pub struct Alerts(Arc<Mutex<Vec<Alert>>>);

impl Alerts {
    /// All so far.
    pub fn all(&self) -> Vec<Alert> {
        self.0.lock().expect("no panic holds it").clone()
    }

    async fn serve(self, listener: tokio::net::TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let taken = self.clone();
            tokio::spawn(async move {
                if let Some(alert) = take_alert(stream).await {
                    taken.0.lock().expect("no panic holds it").push(alert);
                }
            });
        }
    }
}

/// Reads one HTTP request with a `Content-Length`, answers 204 and closes.
async fn take_alert(mut stream: TcpStream) -> Option<Alert> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut request = Vec::new();
    let body_at = loop {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..body_at]).to_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))?
        .trim()
        .parse()
        .ok()?;
    while request.len() < body_at + length {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await.ok()?;
    serde_json::from_slice(&request[body_at..body_at + length]).ok()
}
