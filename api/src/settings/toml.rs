//! Configuration in TOML.

use std::{borrow::Cow, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    collect::{self, Failure, Fault},
    path::{Path, Step},
};

/// A text whose keys and values know where they stand.
#[derive(Debug, Clone)]
pub(super) struct Document<'a>(Spanned<DeTable<'a>>);

impl<'a> Document<'a> {
    /// Every error of the grammar, or the document.
    pub(super) fn parse(text: &'a str) -> Result<Self, Vec<Fault>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self(table));
        }
        let fault = |error: toml::de::Error| Fault {
            span: error.span(),
            key: None,
            message: error.message().trim().replace('\n', ", "),
        };
        Err(errors.into_iter().map(fault).collect())
    }
}

impl collect::Document for Document<'_> {
    fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let deserializer = toml::Deserializer::from(self.0.clone());
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = Path::of(error.path());
            let error = error.into_inner();
            Failure {
                path,
                message: error.message().to_owned(),
                span: error.span(),
            }
        })
    }

    fn remove(&mut self, path: &Path) -> bool {
        let Some((Step::Key(key), parents)) = path.0.split_last() else {
            return false;
        };
        table_at(self.0.get_mut(), parents)
            .is_some_and(|table| table.remove(key.as_str()).is_some())
    }

    fn insert(&mut self, path: &Path, placeholder: &'static str) -> bool {
        let Some((Step::Key(key), parents)) = path.0.split_last() else {
            return false;
        };
        let key: DeString<'_> = Cow::Owned(key.clone());
        match (
            table_at(self.0.get_mut(), parents),
            DeValue::parse(placeholder),
        ) {
            (Some(table), Ok(value)) => {
                table.insert(Spanned::new(0..0, key), value);
                true
            }
            _ => false,
        }
    }

    fn find(&self, path: &Path) -> Option<(Range<usize>, Range<usize>)> {
        let (first, steps) = path.0.split_first()?;
        let Step::Key(name) = first else { return None };
        let (key, mut value) = self.0.get_ref().get_key_value(name.as_str())?;
        let mut key = key.span();
        for step in steps {
            match (step, value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    let (inner, next) = table.get_key_value(name.as_str())?;
                    (key, value) = (inner.span(), next);
                }
                (Step::Index(index), DeValue::Array(array)) => {
                    value = array.get(*index)?;
                    key = value.span();
                }
                _ => return None,
            }
        }
        Some((key, value.span()))
    }
}

fn table_at<'t, 'a>(table: &'t mut DeTable<'a>, steps: &[Step]) -> Option<&'t mut DeTable<'a>> {
    match steps.split_first() {
        Some((Step::Key(name), rest)) => table_in(table.get_mut(name.as_str())?.get_mut(), rest),
        Some((Step::Index(_), _)) => None,
        None => Some(table),
    }
}

fn table_in<'t, 'a>(value: &'t mut DeValue<'a>, steps: &[Step]) -> Option<&'t mut DeTable<'a>> {
    match (value, steps.split_first()) {
        (DeValue::Table(table), _) => table_at(table, steps),
        (DeValue::Array(array), Some((Step::Index(index), rest))) => {
            table_in(array.get_mut(*index)?.get_mut(), rest)
        }
        _ => None,
    }
}
