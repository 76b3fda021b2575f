//! What users have: the command line, and tools that speak to the registry.

use std::{fs, process::Command};

use tucano_testkit::{needs, programs, tool};
use tucano_tests::{CLUSTER, Cluster, cluster::TOKEN, images};

use super::{small, text};

#[test]
fn the_command_line_explains_an_unknown_authority() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    let tucano = |arguments: &[&str]| {
        let mut command = cluster.on_network(programs().join("tucano"));
        command
            .env("TUCANO_TOKEN", TOKEN)
            .env_remove("TUCANO_CA_FILE");
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let api = cluster.api();
    let ca_file = cluster.ca_file().display().to_string();
    let known = tucano(&["--api", &api, "--ca-file", &ca_file, "nodes"]);
    assert_eq!(known.0, Some(0), "{known:?}");
    let other = cluster.path("other.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-subj", "/CN=another", "-keyout", "/dev/null", "-out"])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let other = other.display().to_string();
    let stranger = tucano(&["--api", &api, "--ca-file", &other, "nodes"]);
    assert!(
        stranger.0 == Some(5) && stranger.1.contains("--ca-file"),
        "{stranger:?}"
    );
    let absent = tucano(&["--api", &api, "--ca-file", "/no/such", "nodes"]);
    assert!(
        absent.0 == Some(2) && absent.1.contains("copy"),
        "{absent:?}"
    );
    let plain = tucano(&["--api", &api.replace("https", "http"), "nodes"]);
    assert!(
        plain.0 == Some(3) && plain.1.contains("use https://"),
        "{plain:?}"
    );
}

#[test]
fn images_are_pushed_and_pulled_over_tls() {
    if !needs(&CLUSTER) || !needs(&[tool("skopeo")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    let certificates = cluster.path("certificates");
    fs::create_dir(&certificates).unwrap();
    fs::copy(cluster.ca_file(), certificates.join("ca.crt")).unwrap();
    let certificates = certificates.display().to_string();
    let pushed = format!("docker://{}:7070/hello:1", cluster.ctl().ip());
    let archive = format!("oci-archive:{}", images::sample("hello").display());
    let credentials = format!("anybody:{TOKEN}");
    let copy = |arguments: &[&str]| {
        let mut skopeo = cluster.on_network("skopeo");
        skopeo
            .args(["copy", "--quiet"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let stranger = copy(&["--dest-creds", &credentials, &archive, &pushed]);
    assert!(
        text(&stranger.stderr).contains("certificate"),
        "{stranger:?}"
    );
    let push = [
        "--dest-creds",
        &credentials,
        "--dest-cert-dir",
        &certificates,
        &archive,
        &pushed,
    ];
    let output = copy(&push);
    assert!(output.status.success(), "{output:?}");
    let back = format!("oci-archive:{}", cluster.path("back.tar").display());
    let pull = [
        "--src-creds",
        &credentials,
        "--src-cert-dir",
        &certificates,
        &pushed,
        &back,
    ];
    let output = copy(&pull);
    assert!(output.status.success(), "{output:?}");
    // Agents fetch its blobs by TLS, too: they have no other way.
    let body = "{\"name\": \"hello\", \"concurrency\": 2, \"port\": 8080, \"image\": \"hello:1\", \"memory\": \"32MiB\"}";
    let answer = cluster.curl(
        &["-H", "Content-Type: application/json", "-d", body],
        "/v1/services?wait=true&timeout=60s",
    );
    assert_eq!(answer.status, 201, "{answer:?}");
}
