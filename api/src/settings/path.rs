//! Where a value stands in a document: `health.interval`, `topology[2].ip`.

use std::fmt;

/// One step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The steps from the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    /// A path as [`super::Problem`]s name it.
    pub(super) fn parse(key: &str) -> Self {
        let mut steps = Vec::new();
        for part in key.split('.') {
            let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
            steps.push(Step::Key(name.to_owned()));
            let indexes = indexes.split(['[', ']']);
            steps.extend(indexes.filter_map(|index| index.parse().ok().map(Step::Index)));
        }
        Self(steps)
    }

    /// The path of a deserializer's error; it ends before the first step that is not known.
    pub(super) fn of(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        // The field in which `toml::Spanned` keeps its value is not the user's.
        let is_internal = |segment: &&Segment| match segment {
            Segment::Map { key } => key.starts_with("$__serde_spanned"),
            _ => false,
        };
        let segments = path.iter().filter(|segment| !is_internal(segment));
        let steps = segments.map_while(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self(steps.collect())
    }

    /// The path of a key inside this one.
    pub(super) fn with(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The same without `key`, where it ends with that: some deserializers name the key itself, others what it is in.
    pub(super) fn without_last(mut self, key: &str) -> Self {
        if matches!(self.0.last(), Some(Step::Key(last)) if last == key) {
            self.0.pop();
        }
        self
    }

    /// The same up to its last key: an element of a list stands for the whole list.
    pub(super) fn to_last_key(&self) -> Self {
        let end = self.0.iter().rposition(|step| matches!(step, Step::Key(_)));
        Self(self.0[..end.map_or(0, |end| end + 1)].to_vec())
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the two values is, or contains, the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own == other)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}
