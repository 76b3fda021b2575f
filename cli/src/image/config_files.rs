//! The configuration files that a service's configuration takes `from` files beside it.

use std::{fs, path::Path};

use tucano_api::service::{ServiceConfig, file::MAX_FILE_BYTES};

use crate::Error;

/// Puts the text of each file that `from` names into `content`. Returns whether there is any. `configuration` is the path of the
/// configuration, which relative names start at.
///
/// # Errors
/// A file that cannot be read, is too large, or is not text.
pub(crate) fn read(configuration: &Path, config: &mut ServiceConfig) -> Result<bool, Error> {
    let directory = configuration.parent().unwrap_or(Path::new(""));
    let mut any = false;
    for file in &mut config.file {
        if let Some(from) = file.from.take() {
            file.content = Some(read_text(&directory.join(from))?);
            any = true;
        }
    }
    Ok(any)
}

fn read_text(path: &Path) -> Result<String, Error> {
    let size = fs::metadata(path)
        .map_err(Error::input("read", path))?
        .len();
    let refused = |problem: String| {
        let message = format!("{} {problem}", path.display());
        Error::Refused(message.into())
    };
    if size > MAX_FILE_BYTES as u64 {
        return Err(refused(format!(
            "has {size} bytes; the limit for a configuration file is {MAX_FILE_BYTES} bytes"
        )));
    }
    let bytes = fs::read(path).map_err(Error::input("read", path))?;
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text".to_owned()))
}
