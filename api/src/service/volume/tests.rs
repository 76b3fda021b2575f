use super::*;
use crate::settings::{parse, parse_all};

fn parsed(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"db\"\nconcurrency = 2\nport = 80\n{more}");
    parse_all("db.toml", &text).map_err(|errors| errors.to_string())
}

fn volume(name: &str, path: &str, size: &str) -> String {
    format!("[[volume]]\nname = \"{name}\"\npath = \"{path}\"\nsize = \"{size}\"\n")
}

#[test]
fn a_volume_has_a_name_a_path_and_a_size() {
    let config = parsed(&(volume("data", "/var/lib/db", "1GiB") + &volume("wal", "/wal", "8MiB")));
    let config = config.unwrap();
    assert_eq!(config.volume[0].size, Bytes::mib(1024));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("again", &text).unwrap(), config);
    assert_eq!(config.agent_keys().collect::<Vec<_>>(), ["volume"]);
}

#[test]
fn wrong_volumes_are_refused_with_their_index() {
    for (more, expected) in [
        (volume("da/ta", "/a", "1GiB"), "volume name \"da/ta\""),
        (volume("..", "/a", "1GiB"), "volume name"),
        (
            volume("data", "a", "1GiB"),
            "volume[0].path: \"a\" is not the path",
        ),
        (volume("data", "/a/../b", "1GiB"), "volume[0].path"),
        (volume("data", "/", "1GiB"), "volume[0].path"),
        (volume("data", "/sys/x", "1GiB"), "below /sys"),
        (
            volume("data", "/a", "0"),
            "volume[0].size: 0 B is out of range",
        ),
        (volume("data", "/a", "65TiB"), "volume[0].size"),
        (
            volume("data", "/a", "1GiB") + &volume("data", "/b", "1GiB"),
            "volume[1].name: another volume is named data",
        ),
        (
            volume("data", "/a", "1GiB") + &volume("other", "/a", "1GiB"),
            "volume[1].path: \"/a\" is the path of volume[0] already",
        ),
        (
            volume("data", "/a", "1GiB") + &volume("other", "/a/b", "1GiB"),
            "one is below the other",
        ),
        (
            volume("data", "/a/b", "1GiB") + "[[mount]]\npath = \"/a\"\ntmpfs = \"1MiB\"\n",
            "one is below the other",
        ),
        (
            "read_only = true\n".to_owned() + &volume("data", "/tmp", "1GiB"),
            "`tmp_size`",
        ),
    ] {
        let error = parsed(&more).unwrap_err();
        assert!(error.contains(expected), "{more}: {error}");
    }
    let many: String = (0..=MAX_VOLUMES)
        .map(|n| volume(&format!("v{n}"), &format!("/v{n}"), "1GiB"))
        .collect();
    assert!(parsed(&many).unwrap_err().contains("the limit is 8"));
}
