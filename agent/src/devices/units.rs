//! Which names stand for the same devices.
//!
//! Descriptions have several names for one device (`0` and `GPU-8f2c…`), and names for several (`all`), and do not say so. A name stands
//! for another one if it has all of that one's device nodes, of those beside what every container gets. Names that share some device
//! nodes and have others of their own are different devices, such as parts of one card.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{DeviceKind, DeviceName},
    service::NodeDevices,
};

/// What a name gives a container that nobody else should have: paths of device nodes.
pub(super) type Parts = BTreeSet<String>;

/// The devices by their names.
pub(super) fn of(all: &BTreeMap<DeviceKind, BTreeMap<DeviceName, Parts>>) -> NodeDevices {
    let kinds = all.iter();
    kinds
        .map(|(kind, names)| (kind.clone(), of_kind(names)))
        .collect()
}

fn of_kind(names: &BTreeMap<DeviceName, Parts>) -> BTreeMap<DeviceName, BTreeSet<DeviceName>> {
    let units: BTreeSet<&DeviceName> = names.keys().filter(|name| is_unit(names, name)).collect();
    let stands_for = |name: &DeviceName| -> BTreeSet<DeviceName> {
        let own = units.iter().filter(|unit| has(names, name, unit));
        own.map(|unit| (*unit).clone()).collect()
    };
    names
        .keys()
        .map(|name| (name.clone(), stands_for(name)))
        .collect()
}

/// Whether it is a device: no other name has fewer of its parts, and of those with the same ones it is the shortest.
fn is_unit(names: &BTreeMap<DeviceName, Parts>, name: &DeviceName) -> bool {
    let rank = |name: &DeviceName| (name.as_str().len(), name.clone());
    let mut others = names.keys().filter(|other| *other != name);
    !others.any(|other| {
        let (contains, is_contained) = (has(names, name, other), has(names, other, name));
        contains && (!is_contained || rank(other) < rank(name))
    })
}

/// Whether a name has all parts of another one. What has no parts is known by its name alone.
fn has(names: &BTreeMap<DeviceName, Parts>, name: &DeviceName, other: &DeviceName) -> bool {
    name == other || !names[other].is_empty() && names[other].is_subset(&names[name])
}
