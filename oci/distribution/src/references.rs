//! The blobs, manifests and tags of each repository, in SQLite: each change is atomic and on disk when it is acknowledged.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oci_spec::image::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::{
    error::Error,
    limits::Limits,
    manifest::Manifest,
    name::{Name, Which},
};

mod lists;
#[cfg(test)]
mod tests;

pub(crate) use self::lists::{Page, Referrer};

/// Version of the schema below, stored in `user_version`.
const SCHEMA: i64 = 1;

/// `pushed_at` is in seconds since 1970.
const CREATE: &str = "
    CREATE TABLE blobs (
        repository TEXT NOT NULL, digest TEXT NOT NULL, pushed_at INTEGER NOT NULL,
        PRIMARY KEY (repository, digest)) STRICT, WITHOUT ROWID;
    CREATE TABLE manifests (
        repository TEXT NOT NULL, digest TEXT NOT NULL, pushed_at INTEGER NOT NULL,
        media_type TEXT NOT NULL, bytes INTEGER NOT NULL, subject TEXT, artifact_type TEXT, annotations TEXT,
        PRIMARY KEY (repository, digest)) STRICT, WITHOUT ROWID;
    CREATE INDEX referrers ON manifests (repository, subject);
    CREATE TABLE edges (
        repository TEXT NOT NULL, manifest TEXT NOT NULL, target TEXT NOT NULL,
        PRIMARY KEY (repository, manifest, target),
        FOREIGN KEY (repository, manifest) REFERENCES manifests ON DELETE CASCADE) STRICT, WITHOUT ROWID;
    CREATE INDEX targets ON edges (repository, target);
    CREATE TABLE tags (
        repository TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (repository, name),
        FOREIGN KEY (repository, digest) REFERENCES manifests ON DELETE CASCADE) STRICT, WITHOUT ROWID;
    CREATE INDEX tagged ON tags (repository, digest);
";

/// Additional digests under which a manifest was pushed. This table was added later, to existing databases.
const ALIASES: &str = "
    CREATE TABLE IF NOT EXISTS aliases (
        repository TEXT NOT NULL, alias TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (repository, alias),
        FOREIGN KEY (repository, digest) REFERENCES manifests ON DELETE CASCADE) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS aliased ON aliases (repository, digest);
";

/// A manifest's own digest, where `?2` may be an alias.
const OWN: &str = "coalesce((SELECT digest FROM aliases WHERE repository = ?1 AND alias = ?2), ?2)";

/// What is reachable from tags and recent pushes (since `?1`), and the manifests that refer to it.
const LIVE: &str = "
    WITH RECURSIVE live (repository, digest) AS (
        SELECT repository, digest FROM tags
        UNION SELECT repository, digest FROM manifests WHERE pushed_at > ?1
        UNION SELECT edges.repository, edges.target FROM edges
            JOIN live ON edges.repository = live.repository AND edges.manifest = live.digest
        UNION SELECT manifests.repository, manifests.digest FROM manifests
            JOIN live ON manifests.repository = live.repository AND manifests.subject = live.digest)
";

/// An open database.
#[derive(Debug)]
pub(crate) struct References {
    connection: Connection,
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

impl References {
    /// Opens or creates the file, which is limited to `limit_bytes`.
    pub(crate) fn open(path: &Path, limit_bytes: u64) -> Result<Self, Error> {
        let mut connection = Connection::open(path)?;
        configure(&connection, limit_bytes)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match found {
            0 => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(CREATE)?;
                transaction.pragma_update(None, "user_version", SCHEMA)?;
                transaction.commit()?;
            }
            SCHEMA => {}
            found => {
                let known = SCHEMA;
                return Err(Error::Newer { found, known });
            }
        }
        connection.execute_batch(ALIASES)?;
        Ok(Self { connection })
    }

    /// Adds a blob to a repository, or renews its time of push.
    pub(crate) fn add_blob(
        &mut self,
        name: &Name,
        digest: &Digest,
        limits: &Limits,
    ) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        check_repositories(&transaction, name, limits)?;
        transaction.execute(
            "INSERT INTO blobs VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET pushed_at = ?3",
            params![name.as_str(), digest.as_ref(), now()],
        )?;
        Ok(transaction.commit()?)
    }

    /// Whether the repository has the blob.
    pub(crate) fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        self.exists(
            "SELECT 1 FROM blobs WHERE repository = ?1 AND digest = ?2",
            [name.as_str(), digest.as_ref()],
        )
    }

    /// Renews the time of push of a blob whose existence was reported: the client will not push it.
    pub(crate) fn renew_blob(
        &self,
        name: &Name,
        digest: &Digest,
        kept: Duration,
    ) -> Result<(), Error> {
        // Not each time, since it requires a sync.
        let half_way = now() - seconds(kept / 2);
        self.connection.execute(
            "UPDATE blobs SET pushed_at = ?3 WHERE repository = ?1 AND digest = ?2 AND pushed_at < ?4",
            params![name.as_str(), digest.as_ref(), now(), half_way],
        )?;
        Ok(())
    }

    /// Whether a manifest of the repository refers to the blob.
    pub(crate) fn is_referred_to(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        self.exists(
            "SELECT 1 FROM edges WHERE repository = ?1 AND target = ?2",
            [name.as_str(), digest.as_ref()],
        )
    }

    /// Removes a blob from a repository; returns whether it existed.
    pub(crate) fn remove_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        let removed = self.connection.execute(
            "DELETE FROM blobs WHERE repository = ?1 AND digest = ?2",
            [name.as_str(), digest.as_ref()],
        )?;
        Ok(removed > 0)
    }

    /// Adds a manifest to a repository, with the tag that `which` may be.
    pub(crate) fn put_manifest(
        &mut self,
        name: &Name,
        manifest: &Manifest,
        which: &Which,
        limits: &Limits,
    ) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        check_repositories(&transaction, name, limits)?;
        insert(&transaction, name, manifest)?;
        check_count(&transaction, "manifests", name, limits.manifests)?;
        if let Which::Tag(tag) = which {
            transaction.execute(
                "INSERT OR REPLACE INTO tags VALUES (?1, ?2, ?3)",
                [name.as_str(), tag.as_str(), manifest.digest.as_ref()],
            )?;
            check_count(&transaction, "tags", name, limits.tags)?;
        }
        // At most one for each other algorithm, so their number is limited by that of the manifests.
        if let Which::Digest(digest) = which
            && *digest != manifest.digest
        {
            transaction.execute(
                "INSERT OR REPLACE INTO aliases VALUES (?1, ?2, ?3)",
                [name.as_str(), digest.as_ref(), manifest.digest.as_ref()],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// The manifest of this tag or digest.
    pub(crate) fn manifest(&self, name: &Name, which: &Which) -> Result<Option<Stored>, Error> {
        let (sql, key) = match which {
            Which::Tag(tag) => (
                "SELECT digest, media_type FROM tags JOIN manifests USING (repository, digest) \
                 WHERE repository = ?1 AND name = ?2",
                tag.as_str(),
            ),
            Which::Digest(digest) => (
                &*format!(
                    "SELECT digest, media_type FROM manifests WHERE repository = ?1 AND digest = {OWN}"
                ),
                digest.as_ref(),
            ),
        };
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let found = self
            .connection
            .query_row(sql, [name.as_str(), key], row)
            .optional()?;
        let stored = found.map(|(digest, media_type)| {
            Ok::<_, Error>(Stored {
                digest: crate::name::digest(&digest)?,
                media_type,
            })
        });
        stored.transpose()
    }

    /// Removes a tag, or a manifest and its tags, from a repository; returns whether it existed.
    pub(crate) fn remove_manifest(&self, name: &Name, which: &Which) -> Result<bool, Error> {
        let (sql, key) = match which {
            Which::Tag(tag) => (
                "DELETE FROM tags WHERE repository = ?1 AND name = ?2",
                tag.as_str(),
            ),
            Which::Digest(digest) => (
                &*format!("DELETE FROM manifests WHERE repository = ?1 AND digest = {OWN}"),
                digest.as_ref(),
            ),
        };
        Ok(self.connection.execute(sql, [name.as_str(), key])? > 0)
    }

    /// Removes what no tag reaches and was not pushed within `kept`; returns the remaining digests.
    pub(crate) fn forget(&mut self, kept: Duration) -> Result<HashSet<Digest>, Error> {
        let since = now() - seconds(kept);
        let transaction = self.connection.transaction()?;
        let dead = "(repository, digest) NOT IN (SELECT repository, digest FROM live)";
        transaction.execute(
            &format!("{LIVE} DELETE FROM manifests WHERE {dead}"),
            [since],
        )?;
        let blobs = format!("{LIVE} DELETE FROM blobs WHERE pushed_at <= ?1 AND {dead}");
        transaction.execute(&blobs, [since])?;
        transaction.commit()?;
        self.all()
    }

    fn all(&self) -> Result<HashSet<Digest>, Error> {
        let mut statement = self
            .connection
            .prepare("SELECT digest FROM blobs UNION SELECT digest FROM manifests UNION SELECT alias FROM aliases")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|row| Ok(crate::name::digest(&row?)?)).collect()
    }

    fn exists<P: rusqlite::Params>(&self, sql: &str, key: P) -> Result<bool, Error> {
        Ok(self.connection.prepare_cached(sql)?.exists(key)?)
    }
}

fn insert(transaction: &Transaction<'_>, name: &Name, manifest: &Manifest) -> Result<(), Error> {
    let key = [name.as_str(), manifest.digest.as_ref()];
    transaction.execute(
        "INSERT INTO manifests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET \
         pushed_at = ?3, media_type = ?4",
        params![
            key[0],
            key[1],
            now(),
            manifest.media_type,
            i64::try_from(manifest.bytes).unwrap_or(i64::MAX),
            manifest.subject.as_ref().map(AsRef::<str>::as_ref),
            manifest.artifact_type,
            manifest.annotations.as_ref().map(ToString::to_string),
        ],
    )?;
    let mut edge = transaction.prepare_cached(&format!(
        "INSERT OR IGNORE INTO edges VALUES (?1, ?3, {OWN})"
    ))?;
    for target in &manifest.targets {
        edge.execute([key[0], target.digest.as_ref(), key[1]])?;
    }
    Ok(())
}

fn check_repositories(
    transaction: &Transaction<'_>,
    name: &Name,
    limits: &Limits,
) -> Result<(), Error> {
    let is_known = "SELECT 1 FROM blobs WHERE repository = ?1 UNION ALL SELECT 1 FROM manifests WHERE repository = ?1";
    if transaction
        .prepare_cached(is_known)?
        .exists([name.as_str()])?
    {
        return Ok(());
    }
    let count = "SELECT count(*) FROM (SELECT repository FROM blobs UNION SELECT repository FROM manifests)";
    let count: i64 = transaction.query_row(count, [], |row| row.get(0))?;
    let limit = limits.repositories;
    match count.unsigned_abs() >= limit {
        true => Err(Error::TooMany {
            what: "repositories",
            limit,
        }),
        false => Ok(()),
    }
}

fn check_count(
    transaction: &Transaction<'_>,
    table: &'static str,
    name: &Name,
    limit: u64,
) -> Result<(), Error> {
    let sql = format!("SELECT count(*) FROM {table} WHERE repository = ?1");
    let count: i64 = transaction.query_row(&sql, [name.as_str()], |row| row.get(0))?;
    match count.unsigned_abs() > limit {
        true => Err(Error::TooMany { what: table, limit }),
        false => Ok(()),
    }
}

fn configure(connection: &Connection, limit_bytes: u64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode only FULL syncs at each commit: what is acknowledged survives power loss.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let limit_bytes = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
    let pages = limit_bytes / page_bytes.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, seconds)
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX / 2)
}
