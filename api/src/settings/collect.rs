//! Deserializers stop at their first error. To find the others, what is wrong is removed from the document, or a
//! placeholder is inserted for what is missing, and the document is deserialized again.

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::{
    Problem, Validate,
    explain::{Meaning, explain},
    path::Path,
};

/// Most errors that are reported of one text.
const MAX_FAULTS: usize = 50;

/// Values that may stand for a missing one, in both notations.
pub(super) const PLACEHOLDERS: [&str; 7] = [
    "1",
    "\"placeholder\"",
    "\"10s\"",
    "\"127.0.0.1\"",
    "true",
    "[]",
    "{}",
];

/// An error, and which bytes of the text it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Option<Range<usize>>,
    pub(super) key: Option<String>,
    pub(super) message: String,
}

/// What a deserializer says.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) path: Path,
    pub(super) message: String,
    /// Where it knows it itself.
    pub(super) span: Option<Range<usize>>,
}

/// A text in one of the notations.
pub(super) trait Document: Clone {
    fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Failure>;
    /// Whether there was such a value.
    fn remove(&mut self, path: &Path) -> bool;
    fn insert(&mut self, path: &Path, placeholder: &'static str) -> bool;
    /// Where the text has the key at this path, and its value.
    fn find(&self, path: &Path) -> Option<(Range<usize>, Range<usize>)>;
}

/// Every error of a document that follows its notation's grammar.
pub(super) struct Collector<D> {
    document: Result<D, Vec<Fault>>,
}

impl<D: Document> Collector<D> {
    pub(super) fn new(document: Result<D, Vec<Fault>>) -> Self {
        Self { document }
    }

    pub(super) fn run<T: DeserializeOwned + Validate>(self) -> Result<T, Vec<Fault>> {
        let original = self.document?;
        let mut document = original.clone();
        let mut faults = Vec::new();
        let mut unreliable = Vec::new();
        while faults.len() < MAX_FAULTS {
            match document.deserialize::<T>() {
                Ok(value) => {
                    let problems = value.problems().into_iter();
                    let problems = problems.filter(|problem| is_reliable(problem, &unreliable));
                    faults.extend(problems.map(|problem| locate(problem, &original)));
                    return if faults.is_empty() {
                        Ok(value)
                    } else {
                        Err(faults)
                    };
                }
                Err(failure) => {
                    let (fault, repaired) =
                        repair::<T, D>(failure, &original, document, &mut unreliable);
                    faults.extend(fault);
                    let Some(repaired) = repaired else { break };
                    document = repaired;
                }
            }
        }
        Err(faults)
    }
}

/// The error to report, unless it follows from an earlier one, and the document without it, where that can be made.
fn repair<T: DeserializeOwned, D: Document>(
    failure: Failure,
    original: &D,
    mut document: D,
    unreliable: &mut Vec<Path>,
) -> (Option<Fault>, Option<D>) {
    let meaning = explain(&failure.message);
    let (path, fault) = match &meaning {
        Meaning::UnknownKey { found, meant, .. } => {
            let parent = failure.path.without_last(found);
            unreliable.extend(meant.as_ref().map(|key| parent.with(key)));
            let path = parent.with(found);
            let span = original.find(&path).map(|(key, _)| key);
            (path, Some(fault(span.or(failure.span), &parent, &meaning)))
        }
        Meaning::Missing { key } => {
            let parent = failure.path;
            let path = parent.with(key);
            let span = original.find(&parent).map(|(key, _)| key);
            let is_new = !unreliable.contains(&path);
            (path, is_new.then(|| fault(span, &parent, &meaning)))
        }
        Meaning::Other { .. } => {
            let span = original.find(&failure.path).map(|(_, value)| value);
            let fault = fault(failure.span.or(span), &failure.path, &meaning);
            (failure.path, Some(fault))
        }
    };
    let path = path.to_last_key();
    if path.is_root() {
        return (fault, None);
    }
    let repaired = match meaning {
        Meaning::Missing { .. } => with_placeholder::<T, D>(&document, &path),
        _ => document.remove(&path).then_some(document),
    };
    unreliable.push(path);
    (fault, repaired)
}

fn fault(span: Option<Range<usize>>, path: &Path, meaning: &Meaning) -> Fault {
    Fault {
        span,
        key: (!path.is_root()).then(|| path.to_string()),
        message: meaning.to_string(),
    }
}

/// The document with the first placeholder that is accepted at a path.
fn with_placeholder<T: DeserializeOwned, D: Document>(document: &D, path: &Path) -> Option<D> {
    PLACEHOLDERS.iter().find_map(|placeholder| {
        let mut candidate = document.clone();
        let inserted = candidate.insert(path, placeholder);
        let is_accepted = match candidate.deserialize::<T>() {
            Ok(_) => true,
            Err(failure) => !failure.path.0.starts_with(&path.0),
        };
        (inserted && is_accepted).then_some(candidate)
    })
}

/// Whether none of the values that a problem is about was removed or made up.
fn is_reliable(problem: &Problem, unreliable: &[Path]) -> bool {
    let keys = std::iter::once(&problem.key).chain(&problem.depends_on);
    keys.map(|key| Path::parse(key))
        .all(|path| !unreliable.iter().any(|other| path.overlaps(other)))
}

fn locate(problem: Problem, document: &impl Document) -> Fault {
    let mut path = Path::parse(&problem.key);
    let mut found = document.find(&path);
    while found.is_none() && path.0.len() > 1 {
        path.0.pop();
        found = document.find(&path);
    }
    Fault {
        span: found.map(|(key, value)| key.start..value.end.max(key.end)),
        key: Some(problem.key),
        message: problem.message,
    }
}
