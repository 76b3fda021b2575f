//! The maps of all services, as a value that is cheap to copy and to compare: what differs between two of them is found without
//! looking at the rest, so that a change of one service costs the same among ten as among thousands.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tucano_api::ids::ServiceName;

use super::ServiceMap;

/// Parts that are copied and compared each as a whole.
const PARTS: usize = 64;

type Part = BTreeMap<ServiceName, Arc<ServiceMap>>;

/// By service. Parts that have not changed are shared with earlier copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Maps(Vec<Arc<Part>>);

impl Default for Maps {
    fn default() -> Self {
        Self(vec![Arc::default(); PARTS])
    }
}

impl Maps {
    pub(in super::super) fn insert(&mut self, name: ServiceName, map: ServiceMap) {
        self.part(&name).insert(name, Arc::new(map));
    }

    pub(super) fn remove(&mut self, name: &ServiceName) {
        self.part(name).remove(name);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ServiceName) -> bool) {
        for part in &mut self.0 {
            if !part.keys().all(&keep) {
                Arc::make_mut(part).retain(|name, _| keep(name));
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &ServiceMap> {
        self.0
            .iter()
            .flat_map(|part| part.values())
            .map(|map| &**map)
    }

    /// Those that others have not, or have differently.
    pub(super) fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a ServiceMap> {
        let parts = self.0.iter().zip(&other.0);
        let parts = parts.filter(|(own, others)| !Arc::ptr_eq(own, others));
        parts.flat_map(|(own, others)| {
            let is_other = |name: &ServiceName, map: &Arc<ServiceMap>| {
                !others.get(name).is_some_and(|it| Arc::ptr_eq(it, map))
            };
            let own = own.iter();
            own.filter_map(move |(name, map)| is_other(name, map).then_some(&**map))
        })
    }

    fn part(&mut self, name: &ServiceName) -> &mut Part {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let index = hasher.finish() as usize % PARTS;
        Arc::make_mut(&mut self.0[index])
    }
}
