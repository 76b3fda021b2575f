//! Paginated lists.

use oci_spec::image::Digest;
use rusqlite::params;
use serde::Serialize;
use serde_json::Value;

use super::References;
use crate::{
    error::Error,
    limits::{PAGE, REFERRERS_BYTES},
    name::Name,
};

/// A page of a list.
#[derive(Debug, Default, Clone)]
pub(crate) struct Page {
    /// Most entries.
    pub(crate) n: Option<u64>,
    /// The last entry of the previous page.
    pub(crate) last: Option<String>,
}

impl Page {
    fn most(&self) -> u64 {
        self.n.map_or(PAGE, |n| n.min(PAGE))
    }

    fn last(&self) -> &str {
        self.last.as_deref().unwrap_or_default()
    }
}

/// A manifest that refers to another one as its subject: a descriptor in the list of referrers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Value>,
}

impl References {
    /// The names of repositories that have manifests, and whether more follow.
    pub(crate) fn repositories(&self, page: &Page) -> Result<(Vec<String>, bool), Error> {
        let sql = "SELECT DISTINCT repository FROM manifests WHERE repository > ?1 ORDER BY repository LIMIT ?2";
        self.names(sql, page, None)
    }

    /// A repository's tags, and whether more follow; "in lexical (i.e. case-insensitive alphanumeric) order".
    pub(crate) fn tags(&self, name: &Name, page: &Page) -> Result<(Vec<String>, bool), Error> {
        let sql = "SELECT name FROM tags WHERE (lower(name), name) > (lower(?1), ?1) AND repository = ?3 \
                   ORDER BY lower(name), name LIMIT ?2";
        self.names(sql, page, Some(name))
    }

    /// Whether the repository has any content.
    pub(crate) fn has_repository(&self, name: &Name) -> Result<bool, Error> {
        self.exists(
            "SELECT 1 FROM manifests WHERE repository = ?1 UNION ALL SELECT 1 FROM blobs WHERE repository = ?1",
            [name.as_str()],
        )
    }

    /// At most `most` examples of `name:tag`, for error messages.
    pub(crate) fn some_tags(&self, most: u64) -> Result<Vec<String>, Error> {
        let sql = "SELECT repository || ':' || name FROM tags ORDER BY repository, name LIMIT ?1";
        let mut statement = self.connection.prepare(sql)?;
        let rows =
            statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The manifests with this `subject` and, if given, this type; and whether more follow.
    pub(crate) fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: &str,
    ) -> Result<(Vec<Referrer>, bool), Error> {
        let mut statement = self.connection.prepare(
            "SELECT media_type, digest, bytes, artifact_type, annotations FROM manifests \
             WHERE repository = ?1 AND subject = ?2 AND digest > ?3 AND (?4 IS NULL OR artifact_type = ?4) \
             ORDER BY digest",
        )?;
        let mut rows = statement.query(params![
            name.as_str(),
            subject.as_ref(),
            last,
            artifact_type
        ])?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let annotations: Option<String> = row.get(4)?;
            bytes += 500 + annotations.as_ref().map_or(0, String::len);
            if bytes > REFERRERS_BYTES && !found.is_empty() {
                return Ok((found, true));
            }
            found.push(Referrer {
                media_type: row.get(0)?,
                digest: row.get(1)?,
                size: row.get(2)?,
                artifact_type: row.get(3)?,
                annotations: annotations.and_then(|text| serde_json::from_str(&text).ok()),
            });
        }
        Ok((found, false))
    }

    fn names(
        &self,
        sql: &str,
        page: &Page,
        name: Option<&Name>,
    ) -> Result<(Vec<String>, bool), Error> {
        // One more than requested shows whether more follow.
        let most = i64::try_from(page.most()).unwrap_or(i64::MAX - 1) + 1;
        let mut statement = self.connection.prepare(sql)?;
        let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let rows = match name {
            Some(name) => statement.query_map(params![page.last(), most, name.as_str()], text)?,
            None => statement.query_map(params![page.last(), most], text)?,
        };
        let mut names = rows.collect::<Result<Vec<_>, _>>()?;
        let more = names.len() as u64 > page.most();
        names.truncate(usize::try_from(page.most()).unwrap_or(usize::MAX));
        Ok((names, more))
    }
}
