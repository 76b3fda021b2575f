//! Configurations that clients send, as a whole or as a patch of one.

use serde_json::Value;
use tucano_api::{
    service::ServiceConfig,
    settings::{SettingsError, parse},
    state::ServicePatch,
};

use super::DeployError;

/// A configuration that a client has sent. The command line reads files and sends their text; this machine's files are nobody's
/// to read.
pub(super) fn parse_sent(name: &str, text: &str) -> Result<ServiceConfig, SettingsError> {
    let config: ServiceConfig = parse(name, text)?;
    let index = config.file.iter().position(|file| file.from.is_some());
    let message = match index {
        Some(index) => format!(
            "file[{index}].from: the controller reads no files of yours: send the text as `content`, or deploy with the command line"
        ),
        None if !config.env_file.is_empty() => {
            "env_file: the controller reads no files of yours: send the variables as `env`, or deploy with the command line"
                .to_owned()
        }
        None => return Ok(config),
    };
    Err(SettingsError {
        file: name.to_owned(),
        line: None,
        column: None,
        message,
    })
}

/// Merges a patch into the configuration; `null` resets a key to its default.
pub(super) fn patched(
    config: &ServiceConfig,
    patch: ServicePatch,
) -> Result<ServiceConfig, DeployError> {
    let wrong = |message: String| SettingsError {
        file: "patch".to_owned(),
        line: None,
        column: None,
        message,
    };
    let Ok(Value::Object(mut merged)) = serde_json::to_value(config) else {
        return Err(wrong("the current configuration cannot be encoded as JSON".to_owned()).into());
    };
    for (key, value) in patch {
        if key == "name" && value.as_str() != Some(config.name.as_str()) {
            let message =
                "name: a service cannot be renamed: deploy another one and remove this one";
            return Err(wrong(message.to_owned()).into());
        }
        if value.is_null() {
            // An unknown key is an error with `null` as well.
            if merged.remove(&key).is_none() {
                check_known(&key).map_err(DeployError::Config)?;
            }
        } else {
            merged.insert(key, value);
        }
    }
    let text = Value::Object(merged).to_string();
    let parsed = parse_sent("patch", &text);
    // The merged text is generated: its positions mean nothing to the user.
    parsed.map_err(|error| wrong(error.message).into())
}

/// Parses a minimal configuration with `key`, to get the parser's suggestion.
fn check_known(key: &str) -> Result<(), SettingsError> {
    let mut probe = serde_json::Map::new();
    for (known, value) in [
        ("name", "a".into()),
        ("concurrency", 1.into()),
        ("port", 1.into()),
    ] {
        probe.insert(known.to_owned(), value);
    }
    probe.insert(key.to_owned(), Value::Null);
    match parse::<ServiceConfig>("patch", &Value::Object(probe).to_string()) {
        Err(error) if error.message.starts_with("unknown key") => Err(SettingsError {
            line: None,
            column: None,
            ..error
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
