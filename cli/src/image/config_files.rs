//! The configuration files that a service's configuration takes `from` files beside it.

use std::{collections::BTreeMap, fs, path::Path};

use tucano_api::{
    service::{ServiceConfig, file::MAX_FILE_BYTES},
    settings::parse_all,
};

use super::check_size;
use crate::{Error, compose::dotenv};

/// Parses a configuration, with the text of each file that `from` names as its `content`. `path` is the configuration's, which
/// relative names start at. Returns the text to send as well.
///
/// # Errors
/// The configuration is wrong, or a file cannot be read, is too large, or is not text.
pub(crate) fn parse(path: &Path, text: String) -> Result<(String, ServiceConfig), Error> {
    let name = path.display().to_string();
    let mut config: ServiceConfig = parse_all(&name, &text)?;
    if config.file.iter().all(|file| file.from.is_none()) && config.env_file.is_empty() {
        return Ok((text, config));
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut variables = BTreeMap::new();
    for file in std::mem::take(&mut config.env_file) {
        let path = directory.join(file);
        variables.extend(env_file(&path, &read_text(&path)?)?);
    }
    variables.append(&mut config.env);
    config.env = variables;
    for file in &mut config.file {
        if let Some(from) = file.from.take() {
            file.content = Some(read_text(&directory.join(from))?);
        }
    }
    let text = serde_json::to_string(&config).unwrap_or_default();
    let config = parse_all(&name, &text)?;
    Ok((text, config))
}

/// The variables of a file of `NAME=value`; a name alone has the value that it has here.
fn env_file(path: &Path, text: &str) -> Result<Vec<(String, String)>, Error> {
    let here = |name: &str| std::env::var(name).ok();
    let all = dotenv::parse(text, &here).map_err(|(line, message)| {
        Error::Refused(format!("{}:{line}: {message}", path.display()).into())
    })?;
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    Ok(set.collect())
}

fn read_text(path: &Path) -> Result<String, Error> {
    check_size(path, "a configuration file", MAX_FILE_BYTES)?;
    let bytes = fs::read(path).map_err(Error::input("read", path))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Refused(format!("{} is not UTF-8 text", path.display()).into()))
}
