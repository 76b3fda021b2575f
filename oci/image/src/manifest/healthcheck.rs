//! Docker's `HEALTHCHECK`: a command in the container says whether its processes are well.

use std::time::Duration;

use serde_json::Value;

/// What Docker takes where an image does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: u32 = 3;
/// The program that runs a line, where the image names none.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A health check, with Docker's defaults where the image does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time between two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long failures do not count after the start.
    pub start_period: Duration,
    /// How many in a row make a process unhealthy.
    pub retries: u32,
}

impl Healthcheck {
    /// That of an image's configuration. `None` without one, with `NONE`, and where it is malformed: it is no part of what the OCI
    /// specifies, so that an image is not refused for it.
    pub(crate) fn of(config: &Value) -> Option<Self> {
        let config = config.get("config")?;
        let check = config.get("Healthcheck")?;
        let words = strings(check.get("Test")?)?;
        let (kind, rest) = words.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let shell = config.get("Shell").and_then(strings);
                let shell = shell.filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec());
                [&shell, rest].concat()
            }
            _ => return None,
        };
        if rest.iter().all(String::is_empty) {
            return None;
        }
        // Nanoseconds; 0 means Docker's default.
        let time = |key: &str| {
            let nanoseconds = check.get(key).and_then(Value::as_u64).filter(|it| *it > 0);
            nanoseconds.map(Duration::from_nanos)
        };
        let retries = check.get("Retries").and_then(Value::as_u64);
        let retries = retries.filter(|it| *it > 0);
        Some(Self {
            command,
            interval: time("Interval").unwrap_or(DEFAULT_INTERVAL),
            timeout: time("Timeout").unwrap_or(DEFAULT_TIMEOUT),
            start_period: time("StartPeriod").unwrap_or_default(),
            retries: retries.map_or(DEFAULT_RETRIES, |it| u32::try_from(it).unwrap_or(u32::MAX)),
        })
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array()?.iter();
    list.map(|it| it.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(check: Value) -> Option<Healthcheck> {
        Healthcheck::of(&json!({ "config": { "Healthcheck": check } }))
    }

    #[test]
    fn it_is_read_with_dockers_defaults() {
        let check = of(json!({ "Test": ["CMD-SHELL", "curl -f localhost || exit 1"] })).unwrap();
        assert_eq!(
            check.command,
            ["/bin/sh", "-c", "curl -f localhost || exit 1"]
        );
        let seconds = [check.interval, check.timeout, check.start_period].map(|it| it.as_secs());
        assert_eq!((seconds, check.retries), ([30, 30, 0], 3));
        let check = of(json!({
            "Test": ["CMD", "check", "-q"], "Interval": 5_000_000_000_u64, "Timeout": 2_000_000_000_u64,
            "StartPeriod": 60_000_000_000_u64, "Retries": 0,
        }));
        let check = check.unwrap();
        let seconds = [check.interval, check.timeout, check.start_period].map(|it| it.as_secs());
        assert_eq!(
            (check.command, seconds, check.retries),
            (vec!["check".to_owned(), "-q".to_owned()], [5, 2, 60], 3)
        );
        let shell = json!({ "config": { "Shell": ["/bin/bash", "-ec"], "Healthcheck": { "Test": ["CMD-SHELL", "x"] } } });
        assert_eq!(
            Healthcheck::of(&shell).unwrap().command,
            ["/bin/bash", "-ec", "x"]
        );
    }

    #[test]
    fn none_empty_and_malformed_ones_are_none() {
        for check in [
            json!({ "Test": ["NONE"] }),
            json!({ "Test": [] }),
            json!({ "Test": ["CMD"] }),
            json!({ "Test": ["CMD-SHELL", ""] }),
            json!({ "Test": ["curl", "localhost"] }),
            json!({ "Test": "curl localhost" }),
            json!({ "Test": ["CMD", 7] }),
            json!({ "Interval": 5 }),
            json!("yes"),
        ] {
            assert_eq!(of(check.clone()), None, "{check}");
        }
    }
}
