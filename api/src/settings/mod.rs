//! Reading static configuration. Every error of a text is reported at once, each with its file, line, column, key and
//! what to write instead.
//!
//! - [`error`](SettingsError): what an error says, and how it is shown with its line;
//! - `collect`: deserializes a text as often as it takes to find every error in it;
//! - `toml`, `json`: the two notations; `explain`: the deserializers' messages in the user's words.

mod collect;
mod error;
mod explain;
mod json;
mod path;
#[cfg(test)]
mod tests;
mod toml;

use serde::de::DeserializeOwned;

pub use error::{Problem, SettingsError, SettingsErrors};
pub use explain::closest;

use collect::Collector;

/// Largest configuration text that is read, in bytes.
pub const MAX_SETTINGS_BYTES: usize = 1 << 20;

/// Settings whose values are checked after they were read.
pub trait Validate {
    /// Every value that is out of range, or that contradicts another.
    fn problems(&self) -> Vec<Problem>;

    /// Whether there is no problem.
    ///
    /// # Errors
    /// The first problem.
    fn validate(&self) -> Result<(), Problem> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }
}

/// Reads TOML, or JSON where the text starts with `{`, and validates it. `file` names the text in errors.
///
/// # Errors
/// The first error of the text.
pub fn parse<T: DeserializeOwned + Validate>(file: &str, text: &str) -> Result<T, SettingsError> {
    parse_all(file, text).map_err(SettingsErrors::into_first)
}

/// The same, with every error of the text.
///
/// # Errors
/// All that are found, ordered by their place in the text.
pub fn parse_all<T: DeserializeOwned + Validate>(
    file: &str,
    text: &str,
) -> Result<T, SettingsErrors> {
    parse_within(file, text, MAX_SETTINGS_BYTES)
}

/// The same for a text of at most `limit_bytes`.
///
/// # Errors
/// All that are found, ordered by their place in the text.
pub fn parse_within<T: DeserializeOwned + Validate>(
    file: &str,
    text: &str,
    limit_bytes: usize,
) -> Result<T, SettingsErrors> {
    if text.len() > limit_bytes {
        let length = text.len();
        let message =
            format!("the configuration has {length} bytes; the limit is {limit_bytes} bytes");
        return Err(SettingsErrors::whole(file, message));
    }
    let collected = match text.trim_start().starts_with('{') {
        true => Collector::new(json::Document::parse(text)).run(),
        false => Collector::new(toml::Document::parse(text)).run(),
    };
    collected.map_err(|faults| SettingsErrors::new(file, text, faults))
}
