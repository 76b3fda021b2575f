//! Configuration in JSON.

use std::ops::Range;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{
    collect::{self, Failure, Fault},
    explain::explain,
    path::{Path, Step},
};

/// A text, and the value it stands for.
#[derive(Debug, Clone)]
pub(super) struct Document<'a> {
    text: &'a str,
    /// Absent as long as the text itself is deserialized, which finds doubled keys too.
    changed: Option<Value>,
}

impl<'a> Document<'a> {
    /// The first error of the grammar, or the document.
    pub(super) fn parse(text: &'a str) -> Result<Self, Vec<Fault>> {
        match serde_json::from_str::<Value>(text) {
            Ok(_) => Ok(Self {
                text,
                changed: None,
            }),
            Err(error) => Err(vec![Fault {
                span: offset(text, &error).map(|offset| offset..offset + 1),
                key: None,
                message: explain(&without_position(&error)).to_string(),
            }]),
        }
    }

    fn value(&mut self) -> Option<&mut Value> {
        if self.changed.is_none() {
            self.changed = serde_json::from_str(self.text).ok();
        }
        self.changed.as_mut()
    }

    fn parent(&mut self, path: &Path) -> Option<(&mut serde_json::Map<String, Value>, String)> {
        let (Step::Key(key), parents) = path.0.split_last()? else {
            return None;
        };
        let mut value = self.value()?;
        for step in parents {
            value = match step {
                Step::Key(name) => value.get_mut(name)?,
                Step::Index(index) => value.get_mut(index)?,
            };
        }
        Some((value.as_object_mut()?, key.clone()))
    }
}

impl collect::Document for Document<'_> {
    fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let result = match &self.changed {
            Some(value) => serde_path_to_error::deserialize(value.clone()),
            None => {
                let mut deserializer = serde_json::Deserializer::from_str(self.text);
                serde_path_to_error::deserialize(&mut deserializer)
            }
        };
        result.map_err(|error| {
            let path = Path::of(error.path());
            let error = error.into_inner();
            let span = offset(self.text, &error).map(|offset| offset..offset + 1);
            // Where the path is known, it leads to the value itself.
            let span = span.filter(|_| path.is_root());
            Failure {
                path,
                message: without_position(&error),
                span,
            }
        })
    }

    fn remove(&mut self, path: &Path) -> bool {
        self.parent(path)
            .is_some_and(|(parent, key)| parent.remove(&key).is_some())
    }

    fn insert(&mut self, path: &Path, placeholder: &'static str) -> bool {
        let Some((parent, key)) = self.parent(path) else {
            return false;
        };
        parent.insert(key, serde_json::from_str(placeholder).unwrap_or_default());
        true
    }

    fn find(&self, path: &Path) -> Option<(Range<usize>, Range<usize>)> {
        let (first, rest) = path.0.split_first()?;
        let (mut key, mut start) = enter(self.text, skip(self.text, 0)?, first)?;
        for step in rest {
            (key, start) = enter(self.text, start, step)?;
        }
        Some((key, start..end_of(self.text, start)?))
    }
}

/// From the start of a list or object to a value in it: its key, and where it starts.
fn enter(text: &str, start: usize, step: &Step) -> Option<(Range<usize>, usize)> {
    let is_object = text[start..].starts_with('{');
    let mut at = skip(text, start + 1)?;
    for index in 0.. {
        let key = match is_object {
            true => at..end_of(text, at)?,
            false => at..at,
        };
        if is_object {
            at = skip(text, key.end)?;
            at = skip(text, at + 1)?;
        }
        let is_it = match step {
            Step::Key(name) => serde_json::from_str::<String>(&text[key.clone()]).ok()? == *name,
            Step::Index(wanted) => !is_object && index == *wanted,
        };
        if is_it {
            return Some((key, at));
        }
        at = skip(text, end_of(text, at)?)?;
        if !text[at..].starts_with(',') {
            return None;
        }
        at = skip(text, at + 1)?;
    }
    None
}

/// Where the value that starts there ends.
fn end_of(text: &str, start: usize) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(start + values.byte_offset())
}

/// The next byte that is no white space.
fn skip(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.find(|c: char| !c.is_whitespace())
        .map(|length| from + length)
}

fn offset(text: &str, error: &serde_json::Error) -> Option<usize> {
    let line = error.line().checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    Some((start + error.column().saturating_sub(1)).min(text.len()))
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map(|(message, _)| message);
    message.unwrap_or(&text).to_owned()
}
