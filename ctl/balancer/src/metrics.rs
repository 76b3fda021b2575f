//! Counters of the data plane: each thread has its own, and they are added up when they are read.

use std::{fmt, rc::Rc, sync::Arc};

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

use crate::{
    core::counters::{Count, Level, PerThread, Thread},
    plane::DataPlane,
    worker::local::LocalService,
};

/// Counters of one service.
#[derive(Debug)]
pub struct ServiceStats(PerThread<ServiceCounters>);

/// Those of one thread.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// Responses by class: 1xx to 5xx, the balancer's own included.
    responses: [Count; 5],
    /// Retried requests.
    pub retries: Count,
    /// Ejections of processes.
    pub ejections: Count,
    in_flight: Level,
    tunnels: Level,
}

/// Counters that belong to no service.
#[derive(Debug)]
pub struct ClientStats(PerThread<ClientCounters>);

/// Those of one thread.
#[derive(Debug, Default)]
pub struct ClientCounters {
    connections: Level,
    accepted: Count,
    /// Requests that were malformed or matched no service.
    pub refused: Count,
}

impl ServiceStats {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self(PerThread::new(threads))
    }

    /// The counters that `thread` writes.
    pub fn of(&self, thread: Thread) -> &ServiceCounters {
        self.0.of(thread)
    }

    /// The counters as they are now, as reported to the controller.
    pub fn read(&self, service: ServiceName) -> ServiceMetrics {
        let count = |of: &dyn Fn(&ServiceCounters) -> &Count| -> u64 {
            self.0.iter().map(|counters| of(counters).read()).sum()
        };
        let level = |of: fn(&ServiceCounters) -> &Level| -> i64 {
            self.0.iter().map(|counters| of(counters).read()).sum()
        };
        ServiceMetrics {
            service,
            responses: std::array::from_fn(|class| count(&|it| &it.responses[class])),
            retries: count(&|it| &it.retries),
            ejections: count(&|it| &it.ejections),
            in_flight: level(|it| &it.in_flight),
            tunnels: level(|it| &it.tunnels),
        }
    }
}

impl ServiceCounters {
    /// Counts a response to a client.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.responses[class].increase();
    }
}

impl ClientStats {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self(PerThread::new(threads))
    }

    /// The counters that `thread` writes.
    pub fn of(&self, thread: Thread) -> &ClientCounters {
        self.0.of(thread)
    }

    /// Open client connections.
    pub fn connections(&self) -> i64 {
        self.0
            .iter()
            .map(|counters| counters.connections.read())
            .sum()
    }

    /// Client connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.0.iter().map(|counters| counters.accepted.read()).sum()
    }

    /// Requests that were malformed or matched no service so far.
    pub fn refused(&self) -> u64 {
        self.0.iter().map(|counters| counters.refused.read()).sum()
    }
}

/// One request or tunnel, counted until this is dropped.
pub struct Counted {
    service: Rc<LocalService>,
    level: fn(&ServiceCounters) -> &Level,
}

/// One client connection, counted until this is dropped.
#[derive(Debug)]
pub struct ConnectionCount {
    plane: Arc<DataPlane>,
    thread: Thread,
}

impl Counted {
    /// A request to `service`.
    pub fn request(service: &Rc<LocalService>) -> Self {
        Self::count(service, |counters| &counters.in_flight)
    }

    /// A tunnel to `service`.
    pub fn tunnel(service: &Rc<LocalService>) -> Self {
        Self::count(service, |counters| &counters.tunnels)
    }

    fn count(service: &Rc<LocalService>, level: fn(&ServiceCounters) -> &Level) -> Self {
        level(service.counters()).add(1);
        Self {
            service: service.clone(),
            level,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.level)(self.service.counters()).add(-1);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl ConnectionCount {
    /// A connection that `thread` has accepted.
    pub fn new(plane: &Arc<DataPlane>, thread: Thread) -> Self {
        let counters = plane.clients.of(thread);
        counters.accepted.increase();
        counters.connections.add(1);
        Self {
            plane: plane.clone(),
            thread,
        }
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.plane.clients.of(self.thread).connections.add(-1);
    }
}

/// All counters as they are now, as reported to the controller.
pub fn read(plane: &DataPlane) -> BalancerMetrics {
    let table = plane.table();
    let services = table.services().iter();
    BalancerMetrics {
        accepted: plane.clients.accepted(),
        refused: plane.clients.refused(),
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
            clients.accepted(),
        )?;
        counter(
            &mut encoder,
            "refused",
            "Requests that were malformed or matched no service",
            clients.refused(),
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
        let metrics = read(&self.0).services;
        let each = |encoder: &mut DescriptorEncoder<'_>,
                    name: &str,
                    help: &str,
                    read: &dyn Fn(&ServiceMetrics, &mut Family<'_>) -> fmt::Result,
                    kind: &dyn EncodeMetric| {
            let metric = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            let mut family = Family {
                metric,
                service: "",
            };
            metrics.iter().try_for_each(|service| {
                family.service = service.service.as_str();
                read(service, &mut family)
            })
        };
        let (count, gauge) = (ConstCounter::new(0_u64), ConstGauge::new(0_i64));
        each(
            encoder,
            "responses",
            "Responses to clients, by status class",
            &|stats, family| family.classes(stats.responses),
            &count,
        )?;
        each(
            encoder,
            "retries",
            "Retried requests",
            &|stats, family| family.counter(stats.retries),
            &count,
        )?;
        each(
            encoder,
            "ejections",
            "Ejections of processes that refused a connection",
            &|stats, family| family.counter(stats.ejections),
            &count,
        )?;
        each(
            encoder,
            "in_flight",
            "Requests in flight",
            &|stats, family| family.gauge(stats.in_flight),
            &gauge,
        )?;
        each(
            encoder,
            "tunnels",
            "Upgraded connections, such as websockets",
            &|stats, family| family.gauge(stats.tunnels),
            &gauge,
        )
    }
}

struct Family<'a> {
    metric: MetricEncoder<'a>,
    service: &'a str,
}

impl Family<'_> {
    fn classes(&mut self, counts: [u64; 5]) -> fmt::Result {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(counts) {
            let labels = [("service", self.service), ("status", class)];
            let count = ConstCounter::new(count);
            count.encode(self.metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, count: u64) -> fmt::Result {
        let count = ConstCounter::new(count);
        count.encode(self.metric.encode_family(&[("service", self.service)])?)
    }

    fn gauge(&mut self, level: i64) -> fmt::Result {
        let gauge = ConstGauge::new(level);
        gauge.encode(self.metric.encode_family(&[("service", self.service)])?)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(metric)
}
