//! Clients: each sends its next request when it has the answer to the last one.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::TcpStream,
    runtime,
    task::{JoinSet, LocalSet},
};

use crate::http::Connection;

/// What is asked for, and by how many.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) connections: usize,
    request: Rc<Vec<u8>>,
}

/// One turn of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) requests: usize,
    pub(crate) seconds: f64,
    /// CPU time of the proxy, user and system.
    pub(crate) cpu_seconds: f64,
    /// Of each request, in order of size.
    pub(crate) latencies_us: Vec<u32>,
}

/// When the clients stop.
#[derive(Debug, Clone)]
enum Until {
    Instant(Instant),
    /// So many requests are left.
    Count(Rc<Cell<usize>>),
}

/// The host that the balancer routes.
pub(crate) const HOST: &str = "bench.localhost";

impl Load {
    /// `exchange` is the length of answers, or `post` and the length of requests' bodies; after `short`, requests have no header
    /// but `Host`.
    pub(crate) fn new(exchange: &str, connections: usize) -> Result<Self> {
        let (fields, exchange) = match exchange.strip_prefix("short") {
            Some(exchange) => ("", exchange),
            None => (BROWSER, exchange),
        };
        let (length, posted) = match exchange.strip_prefix("post") {
            Some(posted) => (0, Some(posted.parse::<usize>())),
            None => (exchange.parse()?, None),
        };
        let posted = posted.transpose().context("post is followed by a length")?;
        Ok(Self {
            name: match (posted, fields.is_empty()) {
                (Some(len), _) => format!("requests of {len} bytes"),
                (None, false) => format!("answers of {length} bytes"),
                (None, true) => format!("answers of {length} bytes to short requests"),
            },
            connections,
            request: Rc::new(request(length, posted, fields)),
        })
    }

    /// Asks `address` for `time`; `cpu_seconds` says what the proxy has used so far.
    pub(crate) fn run_for(
        &self,
        address: SocketAddr,
        time: Duration,
        cpu_seconds: impl Fn() -> Result<f64>,
    ) -> Result<Measured> {
        let (begun, before) = (Instant::now(), cpu_seconds()?);
        let latencies_us = self.run(address, Until::Instant(begun + time))?;
        Ok(Measured {
            requests: latencies_us.len(),
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds()? - before,
            latencies_us,
        })
    }

    /// Asks `address` so many times.
    pub(crate) fn run_count(&self, address: SocketAddr, count: usize) -> Result<()> {
        let asked = self.run(address, Until::Count(Rc::new(Cell::new(count))))?;
        ensure!(
            asked.len() == count,
            "{} of {count} were answered",
            asked.len()
        );
        Ok(())
    }

    fn run(&self, address: SocketAddr, until: Until) -> Result<Vec<u32>> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let latencies = Rc::new(RefCell::new(Vec::new()));
        let all = async {
            let mut clients = JoinSet::new();
            for _ in 0..self.connections {
                let (request, until, latencies) =
                    (self.request.clone(), until.clone(), latencies.clone());
                clients.spawn_local(ask(address, request, until, latencies));
            }
            while let Some(client) = clients.join_next().await {
                client??;
            }
            anyhow::Ok(())
        };
        LocalSet::new().block_on(&runtime, all)?;
        let mut latencies = latencies.take();
        latencies.sort_unstable();
        Ok(latencies)
    }
}

impl Until {
    fn is_next(&self, now: Instant) -> bool {
        match self {
            Self::Instant(end) => now < *end,
            Self::Count(left) => match left.get().checked_sub(1) {
                Some(fewer) => {
                    left.set(fewer);
                    true
                }
                None => false,
            },
        }
    }
}

impl Measured {
    /// The latency that so many of 1,000 requests do not exceed.
    pub(crate) fn latency_us(&self, per_mille: usize) -> f64 {
        let place = (self.latencies_us.len() * per_mille / 1000).min(self.latencies_us.len() - 1);
        f64::from(self.latencies_us[place])
    }
}

async fn ask(
    address: SocketAddr,
    request: Rc<Vec<u8>>,
    until: Until,
    latencies: Rc<RefCell<Vec<u32>>>,
) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection::new(stream);
    loop {
        let begun = Instant::now();
        if !until.is_next(begun) {
            return Ok(());
        }
        connection.send(&request).await?;
        let head = connection.receive().await?;
        let line = head.context("a connection was closed")?.line;
        ensure!(line.contains(" 200 "), "{line}");
        let latency = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        latencies.borrow_mut().push(latency);
    }
}

/// Header lines of a browser.
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
     Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
     Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n";

fn request(length: usize, posted: Option<usize>, fields: &str) -> Vec<u8> {
    let (method, framing) = match posted {
        Some(len) => ("POST", format!("Content-Length: {len}\r\n")),
        None => ("GET", String::new()),
    };
    let head = format!("{method} /{length} HTTP/1.1\r\nHost: {HOST}\r\n{fields}{framing}\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + posted.unwrap_or(0), b'x');
    request
}
