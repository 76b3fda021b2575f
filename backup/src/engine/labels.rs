//! What this program needs to know of a snapshot, in its tags: restic shows them, and keeps them.

use rustic_core::repofile::{SnapshotFile, SnapshotId};

use super::opened::{Opened, explain};
use crate::{Backup, Class, Failure, Kind, Snapshot};

/// The volume.
const VOLUME: &str = "tucano-volume=";

/// What it has.
const KIND: &str = "tucano-kind=";

/// A first pass.
const DRAFT: &str = "tucano-draft";

/// What begins all of them.
const OWN: &str = "tucano-";

/// Maximum length of a tag.
const TAG_BYTES: usize = 256;

/// Maximum number of further tags.
const TAGS: usize = 32;

/// The labels of a snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) volume: Option<String>,
    pub(super) kind: Option<Kind>,
    pub(super) draft: bool,
    pub(super) tags: Vec<String>,
}

impl Labels {
    pub(super) fn of(snapshot: &SnapshotFile) -> Self {
        let mut labels = Self::default();
        for tag in snapshot.tags.iter() {
            if let Some(volume) = tag.strip_prefix(VOLUME) {
                labels.volume = Some(volume.to_owned());
            } else if let Some(kind) = tag.strip_prefix(KIND) {
                labels.kind = match kind {
                    "tree" => Some(Kind::Tree),
                    "stream" => Some(Kind::Stream),
                    _ => None,
                };
            } else if tag == DRAFT {
                labels.draft = true;
            } else {
                labels.tags.push(tag.clone());
            }
        }
        labels
    }
}

/// Labels a new snapshot.
///
/// # Errors
/// A tag is invalid.
pub(super) fn write(
    snapshot: &mut SnapshotFile,
    request: &Backup,
    kind: Kind,
) -> Result<(), Failure> {
    if request.tags.len() > TAGS {
        return Err(Failure::bad_request(format!("more than {TAGS} tags")));
    }
    for tag in &request.tags {
        if tag.starts_with(OWN) {
            let message = format!("the tag {tag:?}: {OWN} is how this program's own tags begin");
            return Err(Failure::bad_request(message));
        }
    }
    let kind = match kind {
        Kind::Tree => "tree",
        Kind::Stream => "stream",
    };
    let own = [
        format!("{VOLUME}{}", request.volume),
        format!("{KIND}{kind}"),
    ];
    let draft = request.draft.then(|| DRAFT.to_owned());
    for tag in own
        .into_iter()
        .chain(draft)
        .chain(request.tags.iter().cloned())
    {
        // restic separates tags by commas.
        let valid = |char: char| char != ',' && !char.is_control();
        if tag.is_empty() || tag.len() > TAG_BYTES || !tag.chars().all(valid) || tag.ends_with('=')
        {
            return Err(Failure::bad_request(format!(
                "{tag:?} is no tag: 1 to {TAG_BYTES} bytes, without commas"
            )));
        }
        snapshot.tags.add(tag);
    }
    Ok(())
}

/// Every snapshot of the repository.
pub(super) fn all(opened: &Opened) -> Result<Vec<SnapshotFile>, Failure> {
    let all = opened.repository.get_all_snapshots();
    all.map_err(|error| explain(&opened.storage, &error))
}

/// The snapshot of an id.
///
/// # Errors
/// [`Class::SnapshotAbsent`]: there is none.
pub(super) fn find(opened: &Opened, id: &str) -> Result<SnapshotFile, Failure> {
    let well_formed = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !well_formed {
        let message = format!("{id:?} is no snapshot's id: it has 64 hexadecimal digits");
        return Err(Failure::bad_request(message));
    }
    let (storage, id) = (&opened.storage, id.to_lowercase());
    if storage.get(&format!("snapshots/{id}"))?.is_none() {
        return Err(Failure::new(
            Class::SnapshotAbsent,
            format!(
                "there is no snapshot {id} in {}: see the list",
                storage.location()
            ),
        ));
    }
    let found = opened.repository.get_snapshots(&[&id]);
    let found = found.map_err(|error| explain(storage, &error))?;
    let found = found.into_iter().next();
    found.ok_or_else(|| Failure::internal("a snapshot that is there was not found"))
}

/// Removes snapshots.
pub(super) fn remove(opened: &Opened, ids: &[SnapshotId]) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let removed = opened.repository.delete_snapshots(ids);
    removed.map_err(|error| explain(&opened.storage, &error))
}

/// A snapshot as it is listed.
pub(super) fn listed(snapshot: &SnapshotFile) -> Snapshot {
    let labels = Labels::of(snapshot);
    let summary = snapshot.summary.as_ref();
    Snapshot {
        id: snapshot.id.to_string(),
        time: snapshot.time.timestamp().to_string(),
        host: snapshot.hostname.clone(),
        volume: labels.volume,
        tags: labels.tags,
        kind: labels.kind,
        draft: labels.draft,
        files: summary.map(|summary| summary.total_files_processed),
        bytes: summary.map(|summary| summary.total_bytes_processed),
    }
}
