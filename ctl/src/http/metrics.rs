//! `/metrics` for Prometheus. Every scrape reads the cluster's state, so that the values are never stale.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tucano_api::state::{NodeView, ServiceView};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, balancer_metrics::BalancersSnapshot, errors::ApiError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "controller",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    let (nodes, services) = api
        .state
        .query(|cluster| (cluster.nodes(), cluster.services()))
        .await?;
    let snapshot = Snapshot {
        nodes,
        services,
        image_bytes: api.deployer.images().stored_bytes().await,
    };
    let mut registry = Registry::with_prefix("tucano");
    api.state_metrics.register(&mut registry);
    registry.register("alerts", "Alerts sent", api.alerts.sent.clone());
    registry.register(
        "alerts_lost",
        "Alerts that a webhook never accepted",
        api.alerts.lost.clone(),
    );
    registry.register_collector(Box::new(snapshot));
    registry.register_collector(Box::new(BalancersSnapshot(api.discovery.metrics())));
    let mut page = String::new();
    text::encode(&mut page, &registry).map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, "metrics_failed", error.to_string())
    })?;
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, format)], page))
}

/// The cluster at the time of the scrape.
#[derive(Debug)]
struct Snapshot {
    nodes: Vec<NodeView>,
    services: Vec<ServiceView>,
    image_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ConditionLabels {
    condition: String,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct ProcessLabels {
    process: String,
    service: String,
    node: String,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        self.encode_nodes(&mut encoder)?;
        self.encode_services(&mut encoder)?;
        self.encode_processes(&mut encoder)?;
        let bytes = ConstGauge::new(self.image_bytes);
        let (name, help) = ("image_store_bytes", "Size of the stored images");
        bytes.encode(encoder.encode_descriptor(name, help, None, bytes.metric_type())?)
    }
}

impl Snapshot {
    fn encode_nodes(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut by_condition = BTreeMap::new();
        for condition in ["unknown", "alive", "missing", "dead"] {
            by_condition.insert(condition.to_owned(), 0);
        }
        for node in &self.nodes {
            let condition = serde_json::to_value(node.condition).map_err(|_| fmt::Error)?;
            let condition = condition.as_str().unwrap_or_default().to_owned();
            *by_condition.entry(condition).or_insert(0) += 1;
        }
        let conditions = by_condition
            .into_iter()
            .map(|(condition, count)| (ConditionLabels { condition }, count));
        gauges(encoder, "nodes", "Workers of the topology", conditions)?;
        type Read = fn(&tucano_api::state::AliveNode) -> u64;
        let readings: [(&str, &str, Read); 4] = [
            ("node_processes", "Processes assigned to a worker", |node| {
                u64::from(node.processes)
            }),
            ("node_memory_total_bytes", "A worker's memory", |node| {
                node.metrics.memory_total.0
            }),
            (
                "node_memory_available_bytes",
                "A worker's free memory",
                |node| node.metrics.memory_available.0,
            ),
            (
                "node_disk_available_bytes",
                "A worker's free disk space",
                |node| node.metrics.disk_available.0,
            ),
        ];
        for (name, help, read) in readings {
            let values = self.nodes.iter().filter_map(|node| {
                let labels = NodeLabels {
                    node: node.name.to_string(),
                };
                Some((labels, read(node.alive.as_ref()?)))
            });
            gauges(encoder, name, help, values)?;
        }
        let used = self.nodes.iter().filter_map(|node| {
            let labels = NodeLabels {
                node: node.name.to_string(),
            };
            Some((labels, node.alive.as_ref()?.metrics.cpu_used))
        });
        let help = "Share of a worker's CPU time in use";
        gauges(encoder, "node_cpu_used_ratio", help, used)
    }

    fn encode_services(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        type Read = fn(&ServiceView) -> u64;
        let readings: [(&str, &str, Read); 4] = [
            (
                "service_configured",
                "Configured processes of a service",
                |service| u64::from(service.wanted()),
            ),
            (
                "service_healthy",
                "Healthy processes of a service's current revision",
                |service| u64::from(service.active.healthy),
            ),
            (
                "service_pending",
                "Processes of a service that are not placed",
                |service| {
                    service
                        .active
                        .pending
                        .iter()
                        .map(|pending| u64::from(pending.count))
                        .sum()
                },
            ),
            (
                "service_revision",
                "A service's current revision",
                |service| service.configured.revision.0,
            ),
        ];
        for (name, help, read) in readings {
            let values = self.services.iter().map(|service| {
                let labels = ServiceLabels {
                    service: service.configured.name.to_string(),
                };
                (labels, read(service))
            });
            gauges(encoder, name, help, values)?;
        }
        Ok(())
    }

    fn encode_processes(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        use tucano_api::agent::{ProcessMetrics, ProcessReport};
        type Read = fn(&ProcessReport, &ProcessMetrics) -> u64;
        let counters: [(&str, &str, Read); 4] = [
            (
                "process_cpu_microseconds",
                "CPU time of a process",
                |_, m| m.cpu_usage_us,
            ),
            (
                "process_throttled_microseconds",
                "Time for which a process was throttled",
                |_, m| m.throttled_us,
            ),
            (
                "process_oom_kills",
                "Out-of-memory kills in a process",
                |_, m| m.oom_kills,
            ),
            ("process_restarts", "Restarts of a process", |report, _| {
                u64::from(report.restarts)
            }),
        ];
        for (name, help, read) in counters {
            let values = self.processes().map(|(labels, report)| {
                let none = ProcessMetrics::default();
                (
                    labels,
                    read(report, report.metrics.as_ref().unwrap_or(&none)),
                )
            });
            family(
                encoder,
                name,
                help,
                values.map(|(l, v)| (l, ConstCounter::new(v))),
            )?;
        }
        let levels: [(&str, &str, Read); 3] = [
            ("process_memory_bytes", "Memory of a process", |_, m| {
                m.memory_current.0
            }),
            (
                "process_memory_limit_bytes",
                "Memory limit of a process",
                |_, m| m.memory_limit.0,
            ),
            (
                "process_pids",
                "Processes and threads in a process's container",
                |_, m| m.pids_current,
            ),
        ];
        for (name, help, read) in levels {
            let values = self.processes().filter_map(|(labels, report)| {
                Some((labels, read(report, report.metrics.as_ref()?)))
            });
            gauges(encoder, name, help, values)?;
        }
        Ok(())
    }

    fn processes(
        &self,
    ) -> impl Iterator<Item = (ProcessLabels, &tucano_api::agent::ProcessReport)> {
        self.services
            .iter()
            .flat_map(|service| &service.active.processes)
            .map(|process| {
                let labels = ProcessLabels {
                    process: process.report.id.to_string(),
                    service: process.report.service.to_string(),
                    node: process.node.to_string(),
                };
                (labels, &process.report)
            })
    }
}

pub(super) fn gauges<L, V>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, V)>,
) -> Result<(), fmt::Error>
where
    L: EncodeLabelSet,
    ConstGauge<V>: EncodeMetric,
{
    let values = values
        .into_iter()
        .map(|(labels, value)| (labels, ConstGauge::new(value)));
    family(encoder, name, help, values)
}

pub(super) fn family<L: EncodeLabelSet, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, M)>,
) -> Result<(), fmt::Error> {
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else {
        return Ok(());
    };
    let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
