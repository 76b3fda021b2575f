//! Which workers the processes of a service may be on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ServiceConfig;
use crate::{
    ids::{LabelName, LabelValue, ServiceName},
    settings::Problem,
};

/// Labels of a node, or those that a worker must have.
pub type Labels = BTreeMap<LabelName, LabelValue>;

/// Most labels of a node, and of a placement.
pub const MAX_LABELS: usize = 64;
/// Most services in `with` and in `apart_from`.
const MAX_SERVICES: usize = 64;
/// Most CPUs that one process can reserve.
const MAX_CPUS: f64 = 1024.0;

/// `[placement]`: which workers the processes of a service may be on. Every rule holds whenever a process is placed; one that
/// is on a worker where it may not be any more is moved as soon as there is another place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Labels that a worker must have, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// The label over whose values the processes are spread evenly, as far as there is room. Workers without the label count
    /// as ones with a value of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<LabelName>,
    /// Whether there is one process on each worker that may have one, also on those that come later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
    /// Services that a worker must have a process of, each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<ServiceName>,
    /// Services that are never on one worker with this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<ServiceName>,
}

impl Placement {
    /// Whether it has no rule.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a worker with these labels lacks one of those that are wanted.
pub fn lacks(labels: &Labels, wanted: &Labels) -> bool {
    let mut wanted = wanted.iter();
    wanted.any(|(name, value)| labels.get(name) != Some(value))
}

/// What is wrong with the placement of a service by itself.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let placement = &config.placement;
    let mut problems = Vec::new();
    let mut problem = |key: &str, message: String| {
        problems.push(Problem::new(format!("placement.{key}"), message));
    };
    if placement.labels.len() > MAX_LABELS {
        let count = placement.labels.len();
        problem(
            "labels",
            format!("{count} labels are too many: the limit is {MAX_LABELS}"),
        );
    }
    for (key, list) in [
        ("with", &placement.with),
        ("apart_from", &placement.apart_from),
    ] {
        if list.len() > MAX_SERVICES {
            let count = list.len();
            problem(
                key,
                format!("{count} services are too many: the limit is {MAX_SERVICES}"),
            );
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = list.iter().find(|name| !seen.insert(*name)) {
            problem(key, format!("names {twice} twice"));
        }
        if list.contains(&config.name) {
            let message = "names the service itself: its processes are spread over the workers anyway, and `everywhere = true` has one on each";
            problem(key, message.to_owned());
        }
    }
    let both = placement.with.iter();
    if let Some(both) = both
        .into_iter()
        .find(|name| placement.apart_from.contains(name))
    {
        problem(
            "apart_from",
            format!("names {both}, as `with` does: remove it from one of both"),
        );
    }
    if placement.everywhere && placement.spread.is_some() {
        problem(
            "spread",
            "has no meaning with `everywhere`, which has one process on each worker: remove one of both".to_owned(),
        );
    }
    if placement.everywhere && !config.volume.is_empty() {
        problem(
            "everywhere",
            "is not for services with volumes, whose slots stay where their volumes are: write `concurrency`".to_owned(),
        );
    }
    problems
}

/// What is wrong with `cpus_reserved`.
pub(super) fn cpus_problem(config: &ServiceConfig) -> Option<Problem> {
    let reserved = config.cpus_reserved?;
    if !(0.001..=MAX_CPUS).contains(&reserved) {
        let message = "write a number from 0.001 to 1024";
        return Some(Problem::new("cpus_reserved", message));
    }
    let limit = config.cpus.filter(|limit| reserved > *limit)?;
    let message = format!(
        "{reserved} is more than `cpus`, {limit}: a process could not use what it reserves"
    );
    Some(Problem::new("cpus_reserved", message).depending_on("cpus"))
}

#[cfg(test)]
mod tests;
