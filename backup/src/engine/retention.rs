//! Which snapshots stay, and what becomes of data that none has.
//!
//! Data that no snapshot has is marked, and deleted by the first pruning after the grace period: a backup that began before
//! the marking may still refer to it, and brings it back. Nothing younger than a day is marked or moved at all. On top of it
//! pruning takes restic's exclusive lock, so that it never runs while a backup is made, by this program or by restic.

use jiff::Span;
use rustic_core::{PruneOptions, repofile::SnapshotFile};

use super::{
    Context,
    labels::{self, Labels},
    locks::{self, Use},
    opened::{Opened, explain},
    save::shown,
};
use crate::{Class, Failure, Forget, Forgotten, List, Listed, Pruned};

/// Age before which data is neither marked nor moved (hours).
const YOUNG: i64 = 24;

/// Lists snapshots.
pub(super) fn list(context: &Context, request: &List) -> Result<Listed, Failure> {
    let opened = Opened::open(context)?;
    let mut all = labels::all(&opened)?;
    all.retain(|snapshot| {
        let labels = Labels::of(snapshot);
        request
            .volume
            .as_ref()
            .is_none_or(|volume| labels.volume.as_ref() == Some(volume))
            && request
                .host
                .as_ref()
                .is_none_or(|host| snapshot.hostname == *host)
            && request.tags.iter().all(|tag| labels.tags.contains(tag))
    });
    sort(&mut all);
    let total = all.len() as u64;
    all.truncate(context.request.limits.snapshots as usize);
    Ok(Listed {
        id: opened.id(),
        snapshots: all.iter().map(labels::listed).collect(),
        total,
    })
}

/// Removes old snapshots of a volume.
pub(super) fn forget(context: &Context, request: &Forget) -> Result<Forgotten, Failure> {
    let opened = Opened::open(context)?;
    let mut own = labels::all(&opened)?;
    own.retain(|snapshot| Labels::of(snapshot).volume.as_ref() == Some(&request.volume));
    sort(&mut own);
    let old = superfluous(&own, request.keep.get() as usize);
    let ids: Vec<_> = old.iter().map(|snapshot| snapshot.id).collect();
    let mut result = Forgotten {
        forgotten: shown(&ids),
        kept: (own.len() - ids.len()) as u64,
        pruned: None,
        put_off: None,
    };
    labels::remove(&opened, &ids)?;
    opened.storage.tidy()?;
    if request.prune {
        // restic minds them, other than this program.
        locks::remove_stale(&opened.storage, &opened.seal)?;
        match opened.lock(context, Use::Exclusive) {
            Ok(_lock) => result.pruned = Some(prune(context, &opened)?),
            // The snapshots are gone, and their data waits for the next pruning.
            Err(failure) if failure.class == Class::Busy => result.put_off = Some(failure.message),
            Err(failure) => return Err(failure),
        }
    }
    Ok(result)
}

/// Newest first.
fn sort(snapshots: &mut [SnapshotFile]) {
    snapshots.sort_by(|one, other| {
        let time = |snapshot: &SnapshotFile| (snapshot.time.timestamp(), snapshot.id);
        time(other).cmp(&time(one))
    });
}

/// Of one volume's snapshots, newest first, those that go. Drafts do not count; they go once they are older than one that
/// does.
fn superfluous(snapshots: &[SnapshotFile], keep: usize) -> Vec<&SnapshotFile> {
    let mut counted = 0;
    let goes = |snapshot: &&SnapshotFile| {
        if Labels::of(snapshot).draft {
            return counted > 0;
        }
        counted += 1;
        counted > keep
    };
    snapshots.iter().filter(goes).collect()
}

fn prune(context: &Context, opened: &Opened) -> Result<Pruned, Failure> {
    let repository = &opened.repository;
    let grace = i64::from(context.request.limits.grace_hours.get());
    let span = |hours: i64| {
        let span = Span::new().try_hours(hours);
        span.map_err(|error| Failure::bad_request(format!("grace_hours: {error}")))
    };
    let options = PruneOptions::default()
        .keep_delete(span(grace)?)
        .keep_pack(span(YOUNG.min(grace))?);
    let fault = |error| explain(&opened.storage, &error);
    let plan = repository
        .prune_plan(&options)
        .map_err(|error| fault(*error))?;
    let sizes = plan.stats.size_sum();
    let pruned = Pruned {
        deleted: plan.stats.size_to_delete.remove,
        marked: plan.stats.size_to_delete.keep
            + sizes.remove
            + sizes.repackrm
            + plan.stats.size_unref,
        used: sizes.used,
    };
    repository
        .prune(&options, plan)
        .map_err(|error| fault(*error))?;
    match opened.storage.write_fault() {
        Some(fault) => Err(fault),
        None => Ok(pruned),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;

    fn snapshots(kinds: &[&str]) -> Vec<SnapshotFile> {
        let make = |(at, kind): (usize, &&str)| {
            let mut snapshot = SnapshotFile::default();
            let time = Timestamp::from_second(1_000_000 - at as i64).expect("a time");
            snapshot.time = time.to_zoned(TimeZone::UTC);
            snapshot.hostname = format!("w{at}");
            if *kind == "draft" {
                snapshot.tags.add("tucano-draft".to_owned());
            }
            snapshot
        };
        kinds.iter().enumerate().map(make).collect()
    }

    fn gone(kinds: &[&str], keep: usize) -> Vec<String> {
        let all = snapshots(kinds);
        let gone = superfluous(&all, keep);
        gone.iter()
            .map(|snapshot| snapshot.hostname.clone())
            .collect()
    }

    #[test]
    fn the_newest_stay_on_whatever_host() {
        assert_eq!(gone(&["full", "full", "full"], 2), ["w2"]);
        assert!(gone(&["full", "full"], 2).is_empty());
        assert!(gone(&[], 1).is_empty());
    }

    #[test]
    fn drafts_do_not_count() {
        assert_eq!(gone(&["draft", "full", "draft", "full"], 1), ["w2", "w3"]);
        // Better a draft than nothing.
        assert!(gone(&["draft", "draft"], 1).is_empty());
        assert_eq!(gone(&["draft", "draft", "full", "full"], 1), ["w3"]);
    }
}
