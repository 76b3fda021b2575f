//! Configuration files of a service, mounted read-only into each container.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ServiceConfig,
    validate::{length_problem, owner_problems},
};
use crate::settings::Problem;

/// Most files of one service.
pub const MAX_FILES: usize = 64;
/// Largest content of one file, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 10;
/// Largest contents of all files of one service together, in bytes.
pub const MAX_FILES_BYTES: usize = 512 << 10;

/// A text file of a service's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Its absolute path in the container. Directories that the image does not have are created.
    pub path: String,
    /// Its text, of at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// For the command line, which sends its text as `content`: a file, relative to the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its permissions.
    #[serde(default)]
    #[schema(value_type = String)]
    pub mode: FileMode,
    /// Its owner in the container.
    #[serde(default)]
    pub uid: u32,
    /// Its group in the container.
    #[serde(default)]
    pub gid: u32,
}

/// Permissions of a file: `"0444"`, octal as for chmod(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether anyone may execute the file.
    pub fn is_executable(self) -> bool {
        self.0 & 0o111 != 0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o444)
    }
}

impl FromStr for FileMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(text, 8) {
            Ok(mode) if is_octal && mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!(
                "{text:?} are no permissions: write them as for chmod, such as \"0444\" or \"0600\""
            )),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// What is wrong with the files of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let files = &config.file;
    let mut problems = Vec::new();
    problems.extend(length_problem("file", "files", files.len(), MAX_FILES));
    let whole: usize = files.iter().map(|file| file.bytes()).sum();
    if whole > MAX_FILES_BYTES {
        let message = format!(
            "{whole} bytes are too many for all files together: the limit is {MAX_FILES_BYTES} bytes"
        );
        problems.push(Problem::new("file", message));
    }
    for (index, file) in files.iter().enumerate() {
        let problem =
            |(key, message): (&str, String)| Problem::new(format!("file[{index}].{key}"), message);
        problems.extend(file.content_problem().map(problem));
        let item = format!("file[{index}]");
        problems.extend(owner_problems(&item, file.uid, file.gid));
    }
    problems
}

impl ConfigFile {
    fn bytes(&self) -> usize {
        self.content.as_ref().map_or(0, String::len)
    }

    fn content_problem(&self) -> Option<(&'static str, String)> {
        match (&self.content, &self.from) {
            (None, None) => {
                let message = "write the file's text, or with the command line `from`, the name of a file that has it";
                Some(("content", message.to_owned()))
            }
            (Some(_), Some(_)) => Some(("from", "give only one of content and from".to_owned())),
            (None, Some(from)) if from.is_empty() => Some(("from", "name a file".to_owned())),
            _ if self.bytes() > MAX_FILE_BYTES => {
                let bytes = self.bytes();
                let message = format!(
                    "{bytes} bytes are too many for one file: the limit is {MAX_FILE_BYTES} bytes"
                );
                Some(("content", message))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
