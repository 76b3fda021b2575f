use super::*;
use crate::settings::{parse, parse_all};

fn parsed(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\nmemory = \"64MiB\"\n{more}");
    parse_all("a.toml", &text).map_err(|errors| errors.to_string())
}

fn tmpfs(path: &str, size: &str) -> String {
    format!("[[mount]]\npath = \"{path}\"\ntmpfs = \"{size}\"\n")
}

fn host(directory: &str) -> String {
    format!("[[mount]]\npath = \"/media\"\nhost = \"{directory}\"\n")
}

#[test]
fn a_directory_of_the_worker_relaxes_the_service() {
    let config = parsed(&(host("/srv/media") + "read_only = true")).unwrap();
    assert_eq!(config.relaxed(), ["host=/srv/media"]);
    assert_eq!(config.host_paths().collect::<Vec<_>>(), ["/srv/media"]);
    assert_eq!(config.agent_keys().collect::<Vec<_>>(), ["mount"]);
}

fn image(reference: &str) -> String {
    format!("[[mount]]\npath = \"/models\"\nimage = \"{reference}\"\n")
}

#[test]
fn an_image_is_read_only_and_needs_an_agent_that_knows_it() {
    let config = parsed(&image("models/llm:1")).unwrap();
    assert_eq!(config.mounted_images().count(), 0);
    assert!(config.relaxed().is_empty());
    let keys: Vec<_> = config.agent_keys().collect();
    assert_eq!(keys, ["mount", "mount.image"]);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("again", &text).unwrap(), config);
    assert!(parsed(&(image("a:1") + "read_only = true")).is_ok());
    let digest = format!("sha256:{}", "0".repeat(64));
    let resolved = parsed(&(image("a:1") + &format!("digest = \"{digest}\""))).unwrap();
    let images: Vec<_> = resolved.mounted_images().map(Digest::as_str).collect();
    assert_eq!(images, [digest]);
}

#[test]
fn a_tmpfs_has_a_path_and_a_size() {
    let config = parsed(&(tmpfs("/cache", "4KiB") + &tmpfs("/var/run/x", "32MiB"))).unwrap();
    assert_eq!(config.mount[1].tmpfs, Some(Bytes::mib(32)));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("again", &text).unwrap(), config);
}

#[test]
fn wrong_mounts_are_refused_with_their_index() {
    let file = "[[file]]\npath = \"/cache/x\"\ncontent = \"\"\n";
    for (more, expected) in [
        (
            tmpfs("cache", "1MiB"),
            "mount[0].path: \"cache\" is not the path of a directory",
        ),
        (tmpfs("/a/../b", "1MiB"), "not the path of a directory"),
        (tmpfs("/", "1MiB"), "not the path of a directory"),
        (tmpfs("/proc/x", "1MiB"), "below /proc"),
        (tmpfs("/etc/hosts", "1MiB"), "by its agent"),
        (
            tmpfs("/a", "1KiB"),
            "mount[0].tmpfs: write a size of at least",
        ),
        (tmpfs("/a", "65MiB"), "more than `memory`"),
        (
            tmpfs("/a", "40MiB") + &tmpfs("/b", "40MiB"),
            "more than `memory`",
        ),
        (
            tmpfs("/a", "1MiB") + &tmpfs("/a", "1MiB"),
            "mount[1].path: \"/a\" is the path of mount[0] already",
        ),
        (
            tmpfs("/a", "1MiB") + &tmpfs("/a/b", "1MiB"),
            "one is below the other",
        ),
        (
            tmpfs("/a/b", "1MiB") + &tmpfs("/a", "1MiB"),
            "one is below the other",
        ),
        (tmpfs("/cache", "1MiB") + file, "one is below the other"),
        (
            "read_only = true\n".to_owned() + &tmpfs("/tmp", "1MiB"),
            "`tmp_size` sets its size",
        ),
        ("[[mount]]\npath = \"/a\"".to_owned(), "say what is mounted"),
        (
            tmpfs("/a", "1MiB") + "host = \"/srv\"",
            "mount[0].host: give only one of tmpfs, host and image",
        ),
        (
            image("a:1") + "tmpfs = \"1MiB\"",
            "mount[0].image: give only one of tmpfs, host and image",
        ),
        (image(""), "mount[0].image: name an image"),
        (
            image("a:1").replace("/models", "/etc"),
            "mount[0].path: the files of an image are read-only",
        ),
        (
            tmpfs("/a", "1MiB") + &format!("digest = \"sha256:{}\"", "0".repeat(64)),
            "mount[0].digest: only a mount with `image`",
        ),
        (
            image("a:1") + &tmpfs("/models/cache", "1MiB"),
            "one is below the other",
        ),
        (
            image("a:1") + "[[volume]]\nname = \"v\"\npath = \"/models\"\nsize = \"8MiB\"",
            "\"/models\" is the path of mount[0] already",
        ),
        (
            image("a:1") + "[[volume]]\nname = \"v\"\npath = \"/models/data\"\nsize = \"8MiB\"",
            "one is below the other",
        ),
        (tmpfs("/a", "1MiB") + "read_only = true", "has no use"),
        (host("srv"), "mount[0].host: \"srv\" is not the path"),
        (host("/srv/../etc"), "mount[0].host"),
        (host("/srv/"), "mount[0].host"),
    ] {
        let error = parsed(&more).unwrap_err();
        assert!(error.contains(expected), "{more}: {error}");
    }
    assert!(parsed(&tmpfs("/tmp", "1MiB")).is_ok());
}

#[test]
fn mounts_are_bounded() {
    let many: String = (0..=MAX_MOUNTS)
        .map(|n| tmpfs(&format!("/m{n}"), "4KiB"))
        .collect();
    assert!(parsed(&many).unwrap_err().contains("the limit is 64"));
}
