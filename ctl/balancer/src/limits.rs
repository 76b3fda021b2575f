//! Every limit of the data plane, with its default and its flag.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

/// Limits on what clients, processes and the controller may demand of the balancer.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Concurrent client connections; further ones wait in the kernel's accept queue
    #[arg(long, default_value = "10000", value_parser = at_least_one)]
    pub max_connections: usize,
    /// Concurrent connections of one client address (IPv6: of one /64); further ones are answered 429. Not
    /// applied with --trust-forwarded, because all clients then arrive from the proxies' addresses
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub max_connections_per_address: usize,
    /// Longest request or response head, request line and headers together (at least 8 KiB)
    #[arg(long, default_value = "32KiB", value_parser = head_bytes)]
    pub head_bytes: ByteSize,
    /// Most headers in one request or response
    #[arg(long, default_value = "100", value_parser = at_least_one)]
    pub max_headers: usize,
    /// Time for a request's head to arrive, counted from its first byte
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub head_timeout: Duration,
    /// Time that a client may keep an idle connection open
    #[arg(long, default_value = "75s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,
    /// Longest pause of a client while it sends a request's body
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,
    /// Slowest body that is accepted, in bytes per second, over the time spent waiting for it; counted once that
    /// time exceeds --body-timeout, and off with 0B
    #[arg(long, default_value = "100B")]
    pub body_rate_min: ByteSize,
    /// Longest time that a client may leave a response unread
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub write_timeout: Duration,
    /// Time for a response after the client has closed its sending direction
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub half_close_timeout: Duration,
    /// Time that a closed connection is kept while the client still sends, so that it can read its response
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub linger_timeout: Duration,
    /// Most that is read and discarded from a client meanwhile
    #[arg(long, default_value = "64MiB")]
    pub linger_bytes: ByteSize,
    /// Time that requests wait for the first route table
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub routes_timeout: Duration,
    /// Time that a request waits while no process of its service accepts connections
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
    /// Requests that may wait for routes and processes at once; 0 lets none wait
    #[arg(long, default_value = "1000")]
    pub max_waiting: usize,
    /// Memory that waiting requests may hold
    #[arg(long, default_value = "16MiB")]
    pub waiting_bytes: ByteSize,
    /// Waiting requests of one service that are released at once when it has a process again
    #[arg(long, default_value = "10", value_parser = at_least_one)]
    pub waiting_batch: usize,
    /// Time for a process to accept a connection
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    /// Time without any sign of a process's machine, neither acknowledged data nor answered probes, after which connections to
    /// the process are given up; a request that may be repeated is then tried on another process
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub unreachable_timeout: Duration,
    /// Time for finding a process that accepts a connection, over all attempts
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_total_timeout: Duration,
    /// Time for a process to begin its response, counted from the last byte of the request it accepted
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub response_timeout: Duration,
    /// Time for a process to answer Expect: 100-continue before the balancer asks the client for the body itself
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub continue_timeout: Duration,
    /// Most interim responses (1xx) of a process to one request
    #[arg(long, default_value = "16", value_parser = at_least_one)]
    pub max_interim_responses: usize,
    /// How often one request may be sent; failed connection attempts do not count
    #[arg(long, default_value = "3", value_parser = at_least_one)]
    pub tries: usize,
    /// How long a process is ejected after it refused a connection, the first time
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub eject_min: Duration,
    /// Longest ejection of a process that keeps refusing connections
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub eject_max: Duration,
    /// Idle connections to each process that each thread pools
    #[arg(long, default_value = "64")]
    pub upstream_idle: usize,
    /// How long an idle connection to a process is pooled; less than the usual 5 s of servers, so that it is
    /// not reused while the server is closing it
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration)]
    pub upstream_idle_timeout: Duration,
    /// Longest idle time of a pooled connection that a request which cannot be retried is sent over
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub upstream_reuse_timeout: Duration,
    /// Time without a byte after which a tunnel (WebSocket) is closed
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub tunnel_idle_timeout: Duration,
    /// Largest route table accepted from the controller
    #[arg(long, default_value = "16MiB")]
    pub table_bytes: ByteSize,
    /// Time for requests in flight to finish after SIGTERM
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,
    /// Time after SIGTERM in which new clients are still accepted, until another balancer has taken the lock
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub handover_timeout: Duration,
    /// Time after SIGTERM for the first request of a connection that was already accepted
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub first_request_timeout: Duration,
}

impl Limits {
    /// [`Self::head_bytes`] as a length.
    pub fn head_len(&self) -> usize {
        len(self.head_bytes)
    }

    /// [`Self::table_bytes`] as a length.
    pub fn table_len(&self) -> usize {
        len(self.table_bytes)
    }

    /// [`Self::linger_bytes`] as a length.
    pub fn linger_len(&self) -> usize {
        len(self.linger_bytes)
    }

    /// [`Self::waiting_bytes`] as a length.
    pub fn waiting_len(&self) -> usize {
        len(self.waiting_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 1000,
            head_bytes: ByteSize::kib(32),
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            body_rate_min: ByteSize::b(100),
            write_timeout: Duration::from_secs(60),
            half_close_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(5),
            linger_bytes: ByteSize::mib(64),
            routes_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(10),
            max_waiting: 1000,
            waiting_bytes: ByteSize::mib(16),
            waiting_batch: 10,
            connect_timeout: Duration::from_millis(500),
            unreachable_timeout: Duration::from_secs(5),
            connect_total_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(60),
            continue_timeout: Duration::from_secs(1),
            max_interim_responses: 16,
            tries: 3,
            eject_min: Duration::from_millis(500),
            eject_max: Duration::from_secs(10),
            upstream_idle: 64,
            upstream_idle_timeout: Duration::from_secs(4),
            upstream_reuse_timeout: Duration::from_secs(1),
            tunnel_idle_timeout: Duration::from_secs(3600),
            table_bytes: ByteSize::mib(16),
            drain_timeout: Duration::from_secs(10),
            handover_timeout: Duration::from_secs(1),
            first_request_timeout: Duration::from_millis(500),
        }
    }
}

fn len(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// What every client may expect to be accepted.
const HEAD_BYTES_MIN: u64 = 8 * 1024;

fn head_bytes(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.as_u64() < HEAD_BYTES_MIN {
        return Err("use 8KiB or more".to_owned());
    }
    Ok(size)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("use 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
