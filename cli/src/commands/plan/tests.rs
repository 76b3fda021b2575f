use serde_json::json;
use tucano_api::settings::parse;

use super::*;

fn config(more: &str) -> ServiceConfig {
    parse(
        "x",
        &format!("name = \"web\"\nconcurrency = 2\nport = 80\nimage = \"web:1\"\n{more}"),
    )
    .unwrap()
}

fn current(config: &ServiceConfig) -> ServiceView {
    let digest = format!("sha256:{}", "0".repeat(64));
    let process = |number: u32| {
        json!({
            "node": "w1", "current": true, "routed": true, "draining": false,
            "id": format!("web-{number}"), "service": "web", "revision": 3, "state": "healthy",
        })
    };
    let mut config = config.clone();
    config.image = Some(digest.clone());
    serde_json::from_value(json!({
        "configured": { "name": "web", "revision": 3, "image": digest, "config": config, "configured_at": 0 },
        "active": {
            "name": "web", "configured_service": "", "healthy": 2, "pending": [],
            "processes": [process(1), process(2)],
        },
    }))
    .unwrap()
}

#[test]
fn each_key_says_what_its_change_means() {
    let view = current(&config("memory = \"256MiB\""));
    let same = change(Some(&view), &config(""));
    assert_eq!(
        (same.replaced, same.lines[0].as_str()),
        (0, "web: has this configuration, revision 3")
    );
    let limits = change(
        Some(&view),
        &config("memory = \"512MiB\"\nhosts = [\"a.b\"]"),
    );
    assert_eq!(
        (limits.replaced, limits.lines[0].as_str()),
        (0, "web: no process is replaced")
    );
    assert!(
        limits
            .lines
            .iter()
            .any(|it| it.contains("memory: ") && it.contains("limits of running"))
    );
    let other = change(Some(&view), &config("env = { PASSWORD = \"hunter2\" }"));
    assert_eq!(
        (other.replaced, other.lines[0].as_str()),
        (2, "web: 2 processes are replaced")
    );
    let text = other.lines.join("\n");
    assert!(
        text.contains("[PASSWORD]") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn a_new_service_has_its_processes_and_volumes() {
    let new = change(
        None,
        &config("[[volume]]\nname = \"data\"\npath = \"/x\"\nsize = \"8MiB\""),
    );
    assert_eq!(new.lines[0], "web: is new, with 2 processes");
    assert!(new.lines[1].contains("volume data"), "{:?}", new.lines);
}
