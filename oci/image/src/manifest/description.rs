//! What an image's configuration says of its processes, for those who write a service's.

use serde_json::Value;

use super::healthcheck::Healthcheck;

/// What an image says; what it does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// `Entrypoint`: program and first arguments.
    pub entrypoint: Vec<String>,
    /// `Cmd`: further arguments.
    pub cmd: Vec<String>,
    /// `ExposedPorts`, sorted, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `User`.
    pub user: String,
    /// `Volumes`, sorted.
    pub volumes: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `StopSignal`.
    pub stop_signal: String,
    /// `Healthcheck`.
    pub healthcheck: Option<Healthcheck>,
}

impl Description {
    /// Reads an image's configuration. What is malformed counts as absent: the deploy refuses it.
    pub fn of(config: &Value) -> Self {
        let inner = config.get("config");
        let get = |key: &str| inner.and_then(|it| it.get(key));
        let text = |key: &str| {
            get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            entrypoint: words(get("Entrypoint")),
            cmd: words(get("Cmd")),
            exposed_ports: keys(get("ExposedPorts")),
            user: text("User"),
            volumes: keys(get("Volumes")),
            working_dir: text("WorkingDir"),
            stop_signal: text("StopSignal"),
            healthcheck: Healthcheck::of(config),
        }
    }
}

fn words(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|it| Some(it.as_str()?.to_owned()))
        .collect()
}

/// The keys of an object, or the elements of a list, sorted.
fn keys(value: Option<&Value>) -> Vec<String> {
    let mut keys = match value {
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        other => words(other),
    };
    keys.sort();
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_or_malformed_is_empty() {
        for config in [
            json!({}),
            json!({ "config": null }),
            json!({ "config": { "User": 7, "Volumes": "x", "Cmd": "x" } }),
        ] {
            assert_eq!(Description::of(&config), Description::default(), "{config}");
        }
        let description = Description::of(&json!({ "config": {
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": ["/b", "/a"], "Entrypoint": ["run", "-x"],
        } }));
        assert_eq!(description.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(description.volumes, ["/a", "/b"]);
        assert_eq!(description.entrypoint, ["run", "-x"]);
    }
}
