//! Counters of the data plane, kept in atomics beside what they count and read when somebody asks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use hyper::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::plane::Plane;

/// What has become of one service's requests.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Responses by class: 1xx to 5xx, whoever gave them.
    responses: [AtomicU64; 5],
    retries: AtomicU64,
    ejections: AtomicU64,
    in_flight: AtomicI64,
    tunnels: AtomicI64,
}

/// Numbers that belong to no service.
#[derive(Debug, Default)]
pub struct ClientStats {
    connections: AtomicI64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ServiceStats {
    /// The client got a response.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.responses[class].fetch_add(1, Relaxed);
    }

    /// A request is sent once more.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// A process was left out because it refused a connection.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    /// Counts a request until what is given back is dropped.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        InFlight::count(self.clone(), |stats| &stats.in_flight)
    }

    /// Counts a tunnel until what is given back is dropped.
    pub fn begin_tunnel(self: &Arc<Self>) -> InFlight {
        InFlight::count(self.clone(), |stats| &stats.tunnels)
    }
}

impl ClientStats {
    /// Counts a client's connection until what is given back is dropped.
    pub fn connected(self: &Arc<Self>) -> ConnectionCount {
        self.accepted.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        ConnectionCount(self.clone())
    }

    /// A request belonged to no service or was malformed.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Connections that are open now.
    pub fn connections(&self) -> i64 {
        self.connections.load(Relaxed)
    }
}

/// One request or tunnel, counted as long as this lives.
pub struct InFlight {
    stats: Arc<ServiceStats>,
    gauge: fn(&ServiceStats) -> &AtomicI64,
}

/// One client's connection, counted as long as this lives.
#[derive(Debug)]
pub struct ConnectionCount(Arc<ClientStats>);

impl InFlight {
    fn count(stats: Arc<ServiceStats>, gauge: fn(&ServiceStats) -> &AtomicI64) -> Self {
        gauge(&stats).fetch_add(1, Relaxed);
        Self { stats, gauge }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.gauge)(&self.stats).fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// All numbers as Prometheus text.
pub fn render(plane: &Arc<Plane>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tucano_balancer");
    registry.register_collector(Box::new(Scrape(plane.clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

struct Scrape(Arc<Plane>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let clients = &self.0.clients;
        counter(
            &mut encoder,
            "accepted",
            "Client connections so far",
            &clients.accepted,
        )?;
        counter(
            &mut encoder,
            "refused",
            "Requests that were malformed or named no service",
            &clients.refused,
        )?;
        let open = ConstGauge::new(clients.connections());
        let metric = encoder.encode_descriptor(
            "connections",
            "Client connections now",
            None,
            open.metric_type(),
        )?;
        open.encode(metric)?;
        self.encode_services(&mut encoder)
    }
}

impl Scrape {
    fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.0.table();
        let each = |encoder: &mut DescriptorEncoder<'_>,
                    name: &str,
                    help: &str,
                    read: &dyn Fn(&ServiceStats, &mut Family<'_>) -> fmt::Result,
                    kind: &dyn EncodeMetric| {
            let metric = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            let mut family = Family {
                metric,
                service: "",
            };
            table.services().iter().try_for_each(|service| {
                family.service = service.name.as_str();
                read(&service.stats, &mut family)
            })
        };
        let (count, gauge) = (ConstCounter::new(0_u64), ConstGauge::new(0_i64));
        each(
            encoder,
            "responses",
            "Responses to clients, by class of status",
            &|stats, family| family.classes(&stats.responses),
            &count,
        )?;
        each(
            encoder,
            "retries",
            "Requests that were sent once more",
            &|stats, family| family.counter(&stats.retries),
            &count,
        )?;
        each(
            encoder,
            "ejections",
            "Times that a process was left out because it refused a connection",
            &|stats, family| family.counter(&stats.ejections),
            &count,
        )?;
        each(
            encoder,
            "in_flight",
            "Requests under way",
            &|stats, family| family.gauge(&stats.in_flight),
            &gauge,
        )?;
        each(
            encoder,
            "tunnels",
            "Upgraded connections, such as websockets",
            &|stats, family| family.gauge(&stats.tunnels),
            &gauge,
        )
    }
}

struct Family<'a> {
    metric: MetricEncoder<'a>,
    service: &'a str,
}

impl Family<'_> {
    fn classes(&mut self, counters: &[AtomicU64; 5]) -> fmt::Result {
        for (class, counter) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(counters) {
            let labels = [("service", self.service), ("status", class)];
            let count = ConstCounter::new(counter.load(Relaxed));
            count.encode(self.metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, counter: &AtomicU64) -> fmt::Result {
        let count = ConstCounter::new(counter.load(Relaxed));
        count.encode(self.metric.encode_family(&[("service", self.service)])?)
    }

    fn gauge(&mut self, gauge: &AtomicI64) -> fmt::Result {
        let gauge = ConstGauge::new(gauge.load(Relaxed));
        gauge.encode(self.metric.encode_family(&[("service", self.service)])?)
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &AtomicU64,
) -> fmt::Result {
    let counter = ConstCounter::new(value.load(Relaxed));
    let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(metric)
}
