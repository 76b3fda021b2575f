//! What the agent remembers of its volumes in its data directory, apart from the directory of the volumes: a volume that is
//! remembered and not there is never created again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tucano_api::{
    ids::{ClusterId, VolumeId},
    units::Bytes,
};

use super::{error::Error, place::PlaceId, stored};

/// Largest record that is read.
const MAX_BYTES: u64 = 64 << 20;

/// `volumes.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The directory of the volumes, and which one it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<(PathBuf, PlaceId)>,
    /// The clusters that this node has belonged to, whose volumes it uses; the present one is the last.
    #[serde(default)]
    pub(super) clusters: Vec<ClusterId>,
    /// The volumes.
    #[serde(default)]
    pub(super) volumes: BTreeMap<VolumeId, Known>,
}

/// A volume that was created or found here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Which one of its name.
    pub(super) instance: u64,
    /// Its size.
    pub(super) size: Bytes,
}

impl Record {
    /// Reads the record; an empty one where there is none.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        stored::read(path, MAX_BYTES).map(Option::unwrap_or_default)
    }

    /// Stores the record durably.
    pub(super) fn store(&self, path: &Path) -> Result<(), Error> {
        stored::write(path, self)
    }
}
