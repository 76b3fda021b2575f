//! The configuration files that a service's configuration takes `from` files beside it.

use std::{fs, path::Path};

use tucano_api::{
    service::{ServiceConfig, file::MAX_FILE_BYTES},
    settings::parse_all,
};

use super::check_size;
use crate::Error;

/// Parses a configuration, with the text of each file that `from` names as its `content`. `path` is the configuration's, which
/// relative names start at. Returns the text to send as well.
///
/// # Errors
/// The configuration is wrong, or a file cannot be read, is too large, or is not text.
pub(crate) fn parse(path: &Path, text: String) -> Result<(String, ServiceConfig), Error> {
    let name = path.display().to_string();
    let mut config: ServiceConfig = parse_all(&name, &text)?;
    if config.file.iter().all(|file| file.from.is_none()) {
        return Ok((text, config));
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    for file in &mut config.file {
        if let Some(from) = file.from.take() {
            file.content = Some(read_text(&directory.join(from))?);
        }
    }
    let text = serde_json::to_string(&config).unwrap_or_default();
    let config = parse_all(&name, &text)?;
    Ok((text, config))
}

fn read_text(path: &Path) -> Result<String, Error> {
    check_size(path, "a configuration file", MAX_FILE_BYTES)?;
    let bytes = fs::read(path).map_err(Error::input("read", path))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Refused(format!("{} is not UTF-8 text", path.display()).into()))
}
