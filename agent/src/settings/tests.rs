use std::fs;

use tucano_api::settings::parse;

use super::*;

fn read(text: &str) -> Result<Settings, String> {
    parse("agent.toml", text).map_err(|error| error.to_string())
}

#[test]
fn two_lines_are_a_complete_configuration() {
    let settings = read("controller = \"http://10.0.0.1:7070\"\ntoken = \"s\"").unwrap();
    assert_eq!(settings.listen.port(), AGENT_PORT);
    assert_eq!(settings.publish_interval, Span::secs(1));
    assert_eq!(settings.subnet.to_string(), "172.31.0.0/16");
    assert_eq!(settings.ports.to_string(), "20000-29999");
    assert_eq!(
        (settings.logs.files, settings.limits.log_lines),
        (3, 10_000)
    );
}

#[test]
fn invalid_values_are_refused_with_advice() {
    let base = "controller = \"http://10.0.0.1:7070\"\ntoken = \"s\"\n";
    for (more, part) in [
        ("lisen = \"0.0.0.0:1\"", "did you mean \"listen\""),
        (
            "publish_interval = \"1ms\"",
            "agent.toml:3:1: publish_interval: write a duration",
        ),
        ("data_dir = \"x\"", "absolute path"),
        ("bridge = \"a bridge\"", "bridge: write 1 to 15"),
        ("cgroup = \"../up\"", "cgroup: write a path"),
        ("cgroup = \"/\"", "cgroup: write a path"),
        ("subnet = \"10.0.0.0/31\"", "subnet"),
        ("subnet = \"10.0.0.1/16\"", "10.0.0.0/16"),
        ("ports = \"9-3\"", "ports"),
        (
            "host_paths = [\"srv\"]",
            "host_paths: \"srv\" is not usable",
        ),
        ("host_paths = [\"/srv/../etc\"]", "host_paths"),
        ("host_paths = [\"/\"]", "host_paths"),
        ("cdi_dirs = [\"cdi\"]", "cdi_dirs"),
        ("device_paths = [\"/etc/passwd\"]", "device_paths"),
        ("device_paths = [\"/dev/../etc\"]", "device_paths"),
        ("limits = { devices = 0 }", "limits.devices"),
        (
            "backup_paths = [\"srv\"]",
            "backup_paths: \"srv\" is not usable",
        ),
        ("backup_paths = [\"/\"]", "backup_paths"),
        ("[backups]\nconcurrency = 0", "backups.concurrency: write"),
        ("[backups]\ntimeout = \"1ms\"", "backups.timeout: write"),
        ("[backups]\nprocess_wait = \"2h\"", "backups.process_wait"),
        ("[backups]\nmemory = \"1MiB\"", "backups.memory: write"),
        (
            "[volumes]\npath = \"srv\"",
            "volumes.path: write an absolute path",
        ),
        ("[volumes]\nreserve = \"much\"", "is not a size"),
        ("dns = [\"127.0.0.53\"]", "dns: 127.0.0.53 is not reachable"),
        (
            "dns = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\"]",
            "at most 3",
        ),
        ("node_port_clients = [\"10.0.0.1/8\"]", "10.0.0.0/8"),
        (
            "suspect_after = \"50ms\"",
            "suspect_after: write a duration from 100ms to 1m",
        ),
        ("token_file = \"/x\"", "either token or token_file"),
        (
            "[limits]\nprocesses = 0",
            "limits.processes: write a number from 1 to",
        ),
        ("[limits]\nready_networks = 257", "from 0 to 256"),
        ("[limits]\nready_supervisors = 257", "from 0 to 256"),
        (
            "[limits]\nhandshakes = 0",
            "limits.handshakes: write a number",
        ),
        ("[limits]\nhandshake_timeout = \"1ms\"", "from 100ms"),
        ("tls = \"on\"", "write https:// there"),
        ("[limits]\nbody_bytes = \"1KiB\"", "limits.body_bytes"),
        ("[limits]\nvolume_copies = 0", "limits.volume_copies"),
        (
            "[limits]\nvolume_entries = 4000001",
            "limits.volume_entries: write a number from 1 to",
        ),
        (
            "[limits]\ntracked_connections = 100000000",
            "limits.tracked_connections: write a number up to",
        ),
        ("[logs]\nfiles = 0", "keep at least 1 file"),
        (
            "[images]\nunpack = \"tar\"",
            "the values are auto, directories",
        ),
        ("[images]\ncheck_again = \"1ms\"", "images.check_again"),
    ] {
        let message = read(&format!("{base}{more}")).unwrap_err();
        assert!(message.contains(part), "{more}: {message}");
    }
}

#[test]
fn a_controller_that_is_not_an_http_url_is_refused() {
    for url in [
        "10.0.0.1:7070",
        "ftp://10.0.0.1",
        "http://a/b",
        "http://a:1/",
    ] {
        let message = read(&format!("controller = \"{url}\"\ntoken = \"s\"")).unwrap_err();
        assert!(
            message.contains("https://10.0.0.1:7070"),
            "{url}: {message}"
        );
    }
}

#[test]
fn the_scheme_of_the_controller_decides_on_tls() {
    for (controller, tls, expected, has_warning) in [
        ("https://10.0.0.1:7070", "", Mode::On, false),
        ("https://ctl.example", "tls = \"on\"", Mode::On, false),
        ("http://127.0.0.1:7070", "", Mode::On, false),
        ("http://[::1]:7070", "tls = \"on\"", Mode::On, false),
        ("http://localhost:7070", "tls = \"off\"", Mode::Off, false),
        ("http://10.0.0.1:7070", "", Mode::Off, true),
        ("http://10.0.0.1:7070", "tls = \"off\"", Mode::Off, false),
    ] {
        let settings = read(&format!(
            "controller = \"{controller}\"\ntoken = \"s\"\n{tls}"
        ));
        let settings = settings.unwrap();
        assert_eq!(settings.tls_mode(), expected, "{controller} {tls}");
        let warning = settings.plaintext_warning();
        assert_eq!(warning.is_some(), has_warning, "{controller} {tls}");
        assert!(warning.is_none_or(|text| text.contains("https://10.0.0.1:7070")));
    }
    let message = read("controller = \"https://a\"\ntoken = \"s\"\ntls = \"off\"").unwrap_err();
    assert!(message.contains("write http:// there"), "{message}");
}

#[test]
fn https_needs_the_authoritys_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, file) = (
        directory.path().join("ca.pem"),
        directory.path().join("agent.toml"),
    );
    let load = |controller: &str| {
        let text = format!("controller = \"{controller}\"\ntoken = \"s\"\nca_file = {ca:?}");
        fs::write(&file, text).unwrap();
        Settings::load(&file).map_err(|error| error.to_string())
    };
    let message = load("https://10.0.0.1:7070").unwrap_err();
    assert!(
        message.contains("copy the controller's /etc/tucano/ca.pem"),
        "{message}"
    );
    for plain in ["http://10.0.0.1:7070", "http://127.0.0.1:7070"] {
        assert!(load(plain).unwrap().trust.is_none());
    }
    let authority = tucano_tls::Authority::open(&directory.path().join("tls")).unwrap();
    fs::write(&ca, authority.pem()).unwrap();
    for tls in ["https://10.0.0.1:7070", "http://127.0.0.1:7070"] {
        assert!(load(tls).unwrap().trust.is_some());
    }
    fs::write(&ca, "x").unwrap();
    let message = load("https://10.0.0.1:7070").unwrap_err();
    assert!(
        message.contains("ca.pem: it holds no certificate"),
        "{message}"
    );
}

#[test]
fn a_token_is_required_to_listen_beyond_loopback() {
    let open = "controller = \"http://127.0.0.1:7070\"\n";
    let message = read(open).unwrap_err();
    assert!(message.contains("agent_token"), "{message}");
    assert!(read(&format!("{open}listen = \"127.0.0.1:7071\"")).is_ok());
}

#[test]
fn a_token_is_read_from_its_file_and_never_printed() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let file = directory.path().join("agent.toml");
    fs::write(&token, "s3cret\n").unwrap();
    let text = format!("controller = \"http://a:1\"\ntoken_file = {token:?}");
    fs::write(&file, text).unwrap();
    let settings = Settings::load(&file).unwrap();
    assert_eq!(settings.token.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{settings:?}").contains("s3cret"));

    fs::write(&token, " \n").unwrap();
    let message = Settings::load(&file).unwrap_err().to_string();
    assert!(message.contains("is empty"), "{message}");
    fs::remove_file(&token).unwrap();
    let message = Settings::load(&file).unwrap_err().to_string();
    assert!(message.contains("cannot read token_file"), "{message}");
}

/// The package's configuration, optionally with its commented-out settings.
fn packaged(with_comments: bool) -> Settings {
    let setting = |line: &'static str| {
        let shown = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        shown.filter(|_| with_comments).unwrap_or(line)
    };
    let lines: Vec<_> = include_str!("../../../dist/agent/agent.toml")
        .lines()
        .map(setting)
        .collect();
    read(&lines.join("\n")).unwrap()
}

#[test]
fn the_packaged_configuration_listens_on_loopback_only_and_has_a_token() {
    let settings = packaged(false);
    assert!(settings.listen.ip().is_loopback());
    assert!(settings.token_file.is_some());
    assert_eq!(settings.cgroup, None);
}

#[test]
fn commented_out_settings_of_the_packaged_configuration_are_valid_defaults() {
    let (settings, default) = (packaged(true), packaged(false));
    assert!(settings.ip.is_some() && settings.name.is_some());
    assert_eq!(settings.data_dir, default.data_dir);
    assert_eq!(settings.volumes_path(), default.volumes_path());
    assert_eq!(settings.volumes.reserve, Some(Bytes::mib(1024)));
    assert_eq!(default.volumes.reserve, None);
    assert_eq!(settings.ports.to_string(), default.ports.to_string());
    assert_eq!(settings.memory_reserved, default.memory_reserved);
    assert_eq!(settings.logs.file_bytes, default.logs.file_bytes);
    assert_eq!(settings.limits.processes, default.limits.processes);
}
