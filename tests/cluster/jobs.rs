//! Jobs, by the command line from beside the cluster.

use std::{fs, path::PathBuf};

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::{find_tool, needs};
use tucano_tests::{CLUSTER, Cluster, Options};

use crate::exec::{Shell, TOOLS};

/// A job that says who it is on both streams, and ends as its argument says.
fn job(name: &str, script: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nkind = \"job\"\nmemory = \"64MiB\"\nargs = [\"/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n{more}"
    )
}

/// An image without an entry point, so that arguments are a command.
fn only_a_shell(cluster: &Cluster) -> PathBuf {
    let busybox = fs::read(find_tool("busybox").unwrap()).unwrap();
    let entries = [
        Entry::directory("bin/"),
        Entry::file("bin/busybox", busybox).mode(0o755),
    ];
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    let mut image = ImageSpec::new("shell").user("1000:1000").layer(layer);
    image.entrypoint = Vec::new();
    let archive = cluster.path("shell.tar");
    fs::write(&archive, image.build().unwrap().archive().unwrap()).unwrap();
    archive
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn jobs_run_to_completion_and_a_run_ends_with_the_exit_code_of_its_command() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    let image = only_a_shell(&cluster);
    let shell = Shell(cluster);
    let run = |words: &[&str]| shell.tucano(words).output().unwrap();
    let deploy = |config: &str, name: &str| {
        let file = shell.0.path(name);
        fs::write(&file, config).unwrap();
        let (file, image) = (file.to_str().unwrap(), image.to_str().unwrap());
        let deployed = run(&["deploy", file, "--image", image]);
        assert!(deployed.status.success(), "{deployed:?}");
    };
    let script = "echo run $TUCANO_RUN; echo wrong >&2; test -z $FAILS";
    deploy(&job("good", script, ""), "good.toml");
    let said = run(&["run", "good"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(text(&said.stdout), "run 1\n", "{said:?}");
    assert!(text(&said.stderr).contains("wrong\n"), "{said:?}");
    // Another command in its image and environment.
    let command = ["/bin/busybox", "sh", "-c", "echo $TUCANO_SERVICE; exit 7"];
    let said = run(&[&["run", "good", "--"][..], &command].concat());
    assert_eq!(
        (said.status.code(), text(&said.stdout)),
        (Some(7), "good\n"),
        "{said:?}"
    );
    let said = run(&["run", "good", "--", "/no/such"]);
    assert_eq!(said.status.code(), Some(125), "{said:?}");
    assert!(
        text(&said.stderr).contains("could not be started"),
        "{said:?}"
    );

    deploy(
        &job("bad", script, "retries = 1\nenv = { FAILS = \"x\" }"),
        "bad.toml",
    );
    let said = run(&["run", "bad"]);
    assert_eq!(
        (said.status.code(), text(&said.stdout)),
        (Some(1), "run 1\nrun 1\n"),
        "{said:?}"
    );
    let listed = run(&["jobs", "bad"]);
    assert!(
        text(&listed.stdout).contains("failed: ended with exit code 1 | "),
        "{listed:?}"
    );
    let json = run(&["jobs", "bad", "--json"]);
    let runs: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(runs[0]["attempts"].as_array().unwrap().len(), 2, "{runs:#}");
    let attempt = &runs[0]["attempts"][1];
    assert!(attempt["memory_peak"].as_u64().unwrap() > 0, "{runs:#}");
    assert_eq!(attempt["exit"]["code"], 1);

    // A configuration that is not deployed leaves nothing behind.
    let file = shell.0.path("once.toml");
    let once = job(
        "once",
        "echo once",
        &format!("image = {:?}\n", image.to_str().unwrap()),
    );
    fs::write(&file, once).unwrap();
    let said = run(&["run", file.to_str().unwrap()]);
    assert_eq!(
        (said.status.code(), text(&said.stdout)),
        (Some(0), "once\n"),
        "{said:?}"
    );
    let jobs = run(&["jobs"]);
    assert!(!text(&jobs.stdout).contains("once"), "{jobs:?}");
    let routes: serde_json::Value = shell.0.get("/v1/routes").unwrap();
    assert!(
        !routes.to_string().contains("good"),
        "a job is never routed: {routes}"
    );
}
