//! Counters of the data plane: atomics, read when the metrics are scraped.

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
use tucano_api::{
    balancer::{BalancerMetrics, ServiceMetrics},
    ids::ServiceName,
};

use crate::plane::DataPlane;

/// Counters of one service.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Responses by class: 1xx to 5xx, the balancer's own included.
    responses: [AtomicU64; 5],
    retries: AtomicU64,
    ejections: AtomicU64,
    in_flight: AtomicI64,
    tunnels: AtomicI64,
}

/// Counters that belong to no service.
#[derive(Debug, Default)]
pub struct ClientStats {
    connections: AtomicI64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl ServiceStats {
    /// Counts a response to a client.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.responses[class].fetch_add(1, Relaxed);
    }

    /// The counters as they are now, as reported to the controller.
    pub fn read(&self, service: ServiceName) -> ServiceMetrics {
        ServiceMetrics {
            service,
            responses: std::array::from_fn(|class| self.responses[class].load(Relaxed)),
            retries: self.retries.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            tunnels: self.tunnels.load(Relaxed),
        }
    }

    /// Counts a retry.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Counts an ejection.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    /// Counts a request until the result is dropped.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        InFlight::count(self.clone(), |stats| &stats.in_flight)
    }

    /// Counts a tunnel until the result is dropped.
    pub fn begin_tunnel(self: &Arc<Self>) -> InFlight {
        InFlight::count(self.clone(), |stats| &stats.tunnels)
    }
}

impl ClientStats {
    /// Counts a client connection until the result is dropped.
    pub fn connected(self: &Arc<Self>) -> ConnectionCount {
        self.accepted.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        ConnectionCount(self.clone())
    }

    /// Counts a request that was malformed or matched no service.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Open client connections.
    pub fn connections(&self) -> i64 {
        self.connections.load(Relaxed)
    }
}

/// One request or tunnel, counted until this is dropped.
pub struct InFlight {
    stats: Arc<ServiceStats>,
    gauge: fn(&ServiceStats) -> &AtomicI64,
}

/// One client connection, counted until this is dropped.
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

/// All counters as they are now, as reported to the controller.
pub fn read(plane: &DataPlane) -> BalancerMetrics {
    let table = plane.table();
    let services = table.services().iter();
    BalancerMetrics {
        accepted: plane.clients.accepted.load(Relaxed),
        refused: plane.clients.refused.load(Relaxed),
        connections: plane.clients.connections(),
        services: services
            .map(|service| service.stats.read(service.name.clone()))
            .collect(),
    }
}

/// All metrics as Prometheus text.
pub fn render(plane: &Arc<DataPlane>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tucano_balancer");
    registry.register_collector(Box::new(Scrape(plane.clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

struct Scrape(Arc<DataPlane>);

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
            "Client connections accepted",
            &clients.accepted,
        )?;
        counter(
            &mut encoder,
            "refused",
            "Requests that were malformed or matched no service",
            &clients.refused,
        )?;
        let open = ConstGauge::new(clients.connections());
        let metric = encoder.encode_descriptor(
            "connections",
            "Open client connections",
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
            "Responses to clients, by status class",
            &|stats, family| family.classes(&stats.responses),
            &count,
        )?;
        each(
            encoder,
            "retries",
            "Retried requests",
            &|stats, family| family.counter(&stats.retries),
            &count,
        )?;
        each(
            encoder,
            "ejections",
            "Ejections of processes that refused a connection",
            &|stats, family| family.counter(&stats.ejections),
            &count,
        )?;
        each(
            encoder,
            "in_flight",
            "Requests in flight",
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
