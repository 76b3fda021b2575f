//! The balancers' counters in `/metrics`, as each last reported them. The names are those of a balancer's own page, with one
//! more label.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::counter::ConstCounter,
};
use tucano_api::{
    balancer::{BalancerMetrics, ServiceMetrics},
    ids::BalancerId,
};

use super::metrics::{family, gauges};

/// A metric's name and help, and where its value is.
type Counter<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// The counters of all known balancers.
#[derive(Debug)]
pub(super) struct BalancersSnapshot(pub(super) Vec<(BalancerId, BalancerMetrics)>);

#[derive(Debug, Clone, EncodeLabelSet)]
struct BalancerLabels {
    balancer: String,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct TrafficLabels {
    balancer: String,
    service: String,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct ResponseLabels {
    balancer: String,
    service: String,
    status: &'static str,
}

impl Collector for BalancersSnapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        self.encode_clients(encoder)?;
        self.encode_responses(encoder)?;
        self.encode_services(encoder)
    }
}

impl BalancersSnapshot {
    fn encode_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters: [Counter<BalancerMetrics, u64>; 2] = [
            (
                "balancer_accepted",
                "Client connections accepted by a balancer",
                |it| it.accepted,
            ),
            (
                "balancer_refused",
                "Requests that were malformed or matched no service",
                |it| it.refused,
            ),
        ];
        for (name, help, read) in counters {
            let values = self.balancers(|it| ConstCounter::new(read(it)));
            family(encoder, name, help, values)?;
        }
        let help = "Open client connections of a balancer";
        gauges(
            encoder,
            "balancer_connections",
            help,
            self.balancers(|it| it.connections),
        )
    }

    fn encode_responses(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let values = self.services().flat_map(|(balancer, service)| {
            let counts = classes.into_iter().zip(service.responses);
            counts.map(move |(status, count)| {
                let labels = ResponseLabels {
                    balancer: balancer.to_string(),
                    service: service.service.to_string(),
                    status,
                };
                (labels, ConstCounter::new(count))
            })
        });
        let help = "Responses of a balancer to clients, by status class";
        family(encoder, "balancer_responses", help, values)
    }

    fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters: [Counter<ServiceMetrics, u64>; 2] = [
            (
                "balancer_retries",
                "Requests that a balancer has retried",
                |it| it.retries,
            ),
            (
                "balancer_ejections",
                "Ejections of processes that refused a connection",
                |it| it.ejections,
            ),
        ];
        for (name, help, read) in counters {
            let values = self.traffic(|it| ConstCounter::new(read(it)));
            family(encoder, name, help, values)?;
        }
        let levels: [Counter<ServiceMetrics, i64>; 2] = [
            (
                "balancer_in_flight",
                "Requests in flight at a balancer",
                |it| it.in_flight,
            ),
            (
                "balancer_tunnels",
                "Upgraded connections, such as WebSockets",
                |it| it.tunnels,
            ),
        ];
        for (name, help, read) in levels {
            gauges(encoder, name, help, self.traffic(read))?;
        }
        Ok(())
    }

    fn balancers<T>(
        &self,
        read: impl Fn(&BalancerMetrics) -> T,
    ) -> impl Iterator<Item = (BalancerLabels, T)> {
        self.0.iter().map(move |(balancer, counters)| {
            let labels = BalancerLabels {
                balancer: balancer.to_string(),
            };
            (labels, read(counters))
        })
    }

    fn traffic<T>(
        &self,
        read: impl Fn(&ServiceMetrics) -> T,
    ) -> impl Iterator<Item = (TrafficLabels, T)> {
        self.services().map(move |(balancer, service)| {
            let labels = TrafficLabels {
                balancer: balancer.to_string(),
                service: service.service.to_string(),
            };
            (labels, read(service))
        })
    }

    fn services(&self) -> impl Iterator<Item = (&BalancerId, &ServiceMetrics)> {
        self.0.iter().flat_map(|(balancer, counters)| {
            let services = counters.services.iter();
            services.map(move |service| (balancer, service))
        })
    }
}
