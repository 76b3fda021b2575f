//! Storing a snapshot, in two phases: the data, then, after the caller's commit, the snapshot itself.

use std::{
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use rustic_core::{
    BackupOptions, IndexedIds, ParentOptions, ReadSource, SnapshotOptions,
    repofile::{SnapshotFile, SnapshotId},
};

use super::{
    Context,
    labels::{self, Labels},
    locks::Use,
    opened::{Opened, explain},
    pack::save_tree,
    source::{Problems, ROOT, StreamSource, TreeSource},
};
use crate::{BackedUp, Backup, Class, Failure, Kind, Parent, Source};

/// Stores a snapshot.
pub(super) fn backup(
    context: &Context,
    request: &Backup,
    data: Receiver<Vec<u8>>,
) -> Result<BackedUp, Failure> {
    let start = Instant::now();
    let snapshot = prepared(request)?;
    let opened = Opened::open(context)?;
    let _lock = opened.lock(context, Use::Shared)?;
    let limits = &context.request.limits;
    let problems = Problems::new(limits.warnings, request.skip_unreadable);
    let saving = Saving {
        context,
        request,
        opened: &opened,
        problems: &problems,
        start,
    };
    match &request.source {
        Source::Tree { path } => {
            let parent = saving.parent()?;
            let source = TreeSource::new(
                path,
                limits.depth,
                Arc::clone(&context.caller),
                problems.clone(),
                context.reporter.clone(),
            )?;
            let stored = saving.store(&source, snapshot, ROOT, parent.as_ref())?;
            let result = saving.commit(stored)?;
            match parent.filter(|_| request.forget_parent) {
                Some(parent) => saving.forget(&parent).map(|()| result),
                None => Ok(result),
            }
        }
        Source::Stream { name } => {
            let source = StreamSource::new(
                name.clone(),
                data,
                Arc::clone(&context.caller),
                problems.clone(),
                context.reporter.clone(),
            );
            let stored = saving.store(&source, snapshot, name, None);
            // The caller's reason comes first: a stream that breaks off stores nothing.
            problems.check()?;
            let stored = saving.with_size(stored?, source.bytes())?;
            saving.commit(stored)
        }
    }
}

/// The snapshot without its tree.
fn prepared(request: &Backup) -> Result<SnapshotFile, Failure> {
    let time = match &request.time {
        None => Timestamp::now(),
        Some(time) => time.parse().map_err(|error| {
            Failure::bad_request(format!("the time {time:?} is not as in RFC 3339: {error}"))
        })?,
    };
    let kind = match &request.source {
        Source::Tree { .. } => Kind::Tree,
        Source::Stream { name } => {
            if name.is_empty()
                || name.len() > 255
                || name.contains(['/', '\0'])
                || name == "."
                || name == ".."
            {
                return Err(Failure::bad_request(format!(
                    "{name:?} is no name of a file"
                )));
            }
            Kind::Stream
        }
    };
    let mut snapshot = SnapshotOptions::default()
        .time(time.to_zoned(TimeZone::UTC))
        .host(request.host.clone())
        .command("tucano_backup".to_owned())
        .to_snapshot()
        .map_err(Failure::internal)?;
    snapshot.program_version = concat!("tucano_backup ", env!("CARGO_PKG_VERSION")).to_owned();
    labels::write(&mut snapshot, request, kind)?;
    Ok(snapshot)
}

struct Saving<'a> {
    context: &'a Context,
    request: &'a Backup,
    opened: &'a Opened,
    problems: &'a Problems,
    start: Instant,
}

impl Saving<'_> {
    /// The snapshot that the tree is compared with.
    fn parent(&self) -> Result<Option<SnapshotFile>, Failure> {
        match &self.request.parent {
            Parent::None => Ok(None),
            Parent::Snapshot(id) => labels::find(self.opened, id).map(Some),
            Parent::Newest => {
                let all = labels::all(self.opened)?;
                let own = all.into_iter().filter(|snapshot| {
                    let labels = Labels::of(snapshot);
                    labels.volume.as_ref() == Some(&self.request.volume)
                        && labels.kind == Some(Kind::Tree)
                        && !labels.draft
                });
                Ok(own.max_by_key(|snapshot| snapshot.time.timestamp()))
            }
        }
    }

    /// Stores the data. The snapshot is not saved.
    fn store<R>(
        &self,
        source: &R,
        snapshot: SnapshotFile,
        root: &str,
        parent: Option<&SnapshotFile>,
    ) -> Result<SnapshotFile, Failure>
    where
        R: ReadSource + 'static,
        R::Open: Send,
        R::Iter: Send,
    {
        let storage = &self.opened.storage;
        let repository = self.opened.again()?;
        let repository = repository
            .to_indexed_ids()
            .map_err(|error| explain(storage, &error))?;
        let ids: Vec<String> = parent
            .map(|parent| parent.id.to_string())
            .into_iter()
            .collect();
        let options = ParentOptions::default().force(ids.is_empty()).parents(ids);
        let options = BackupOptions::default().no_scan(true).parent_opts(options);
        self.opened.backend.hold_snapshots(true);
        let stored = archive(&repository, &options, source, snapshot, root);
        self.opened.backend.hold_snapshots(false);
        self.context.caller.still_there()?;
        self.problems.check()?;
        let stored = stored.map_err(|error| explain(storage, &error))?;
        // rustic_core logs some errors and goes on.
        if let Some(fault) = storage.write_fault() {
            return Err(fault);
        }
        if parent.map(|parent| parent.id) != stored.parent {
            let id = stored.parent.map(|id| id.to_string());
            return Err(Failure::new(
                Class::SnapshotAbsent,
                format!("the parent cannot be read: another one was used ({id:?}). Try again"),
            ));
        }
        let files = stored
            .summary
            .as_ref()
            .map_or(0, |summary| summary.total_files_processed);
        let expected = self.problems.expected();
        if files != expected {
            return Err(Failure::new(
                Class::Source,
                format!(
                    "{expected} files were found, and {files} were stored: no snapshot is saved. Try again"
                ),
            ));
        }
        Ok(stored)
    }

    /// The snapshot of a stream with its size, which was not known before.
    fn with_size(&self, mut snapshot: SnapshotFile, bytes: u64) -> Result<SnapshotFile, Failure> {
        if bytes == 0 {
            return Err(Failure::new(
                Class::Source,
                "the stream is empty: no snapshot is saved. Did the program that makes it fail?",
            ));
        }
        let storage = &self.opened.storage;
        // With the index as it is now, which has the tree.
        let repository = self.opened.again()?;
        let repository = repository
            .to_indexed()
            .map_err(|error| explain(storage, &error))?;
        let mut tree = repository
            .get_tree(&snapshot.tree)
            .map_err(|error| explain(storage, &error))?;
        for node in &mut tree.nodes {
            node.meta.size = bytes;
        }
        snapshot.tree = save_tree(storage, &self.opened.seal, tree.nodes)?;
        Ok(snapshot)
    }

    /// Saves the snapshot, once the caller says so.
    fn commit(&self, snapshot: SnapshotFile) -> Result<BackedUp, Failure> {
        let (warnings, warnings_total) = self.problems.warnings();
        let summary = snapshot.summary.clone().unwrap_or_default();
        let mut result = BackedUp {
            snapshot: String::new(),
            files: summary.total_files_processed,
            bytes: summary.total_bytes_processed,
            files_read: summary.files_new + summary.files_changed,
            added: summary.data_added_packed,
            milliseconds: self.milliseconds(),
            warnings,
            warnings_total,
        };
        self.context.reporter.ready(&result);
        let patience = self.context.request.limits.commit_seconds.get();
        let patience = Duration::from_secs(patience.into());
        self.context.caller.wait_for_commit(patience)?;
        let repository = &self.opened.repository;
        repository
            .save_snapshots(vec![snapshot])
            .map_err(|error| explain(&self.opened.storage, &error))?;
        result.snapshot = self.opened.backend.saved().unwrap_or_default();
        result.milliseconds = self.milliseconds();
        Ok(result)
    }

    /// Removes the parent if it is a draft of the volume.
    fn forget(&self, parent: &SnapshotFile) -> Result<(), Failure> {
        let labels = Labels::of(parent);
        if labels.draft && labels.volume.as_ref() == Some(&self.request.volume) {
            labels::remove(self.opened, &[parent.id])?;
        }
        Ok(())
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn archive<R>(
    repository: &rustic_core::Repository<impl IndexedIds>,
    options: &BackupOptions,
    source: &R,
    snapshot: SnapshotFile,
    root: &str,
) -> Result<SnapshotFile, Box<rustic_core::RusticError>>
where
    R: ReadSource + 'static,
    R::Open: Send,
    R::Iter: Send,
{
    let path = std::path::Path::new("/").join(root);
    repository.archive(options, source, snapshot, &[path])
}

/// Ids of snapshots, for messages.
pub(super) fn shown(ids: &[SnapshotId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
