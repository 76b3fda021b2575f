//! Commands in processes' containers, by the command line from beside the cluster.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::{Need, find_tool, needs, programs, tool};
use tucano_tests::{CLUSTER, Cluster, Options, cluster::TOKEN, images};

const HELLO: &str = "name = \"hello\"\nconcurrency = 3\nport = 8080\nmemory = \"64MiB\"\n";
pub(crate) const TOOLS: [Need; 2] = [tool("busybox"), tool("script")];

/// The sample, with a shell.
pub(crate) fn with_a_shell(cluster: &Cluster) -> PathBuf {
    let hello = tucano_image_builder::build_programs(images::workspace()).unwrap();
    let hello = fs::read(hello.join("hello")).unwrap();
    let busybox = fs::read(find_tool("busybox").unwrap()).unwrap();
    let entries = [
        Entry::file("hello", hello).mode(0o755),
        Entry::directory("bin/"),
        Entry::file("bin/busybox", busybox).mode(0o755),
    ];
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    let image = ImageSpec::new("hello").user("1000:1000").layer(layer);
    let archive = cluster.path("shell.tar");
    fs::write(&archive, image.build().unwrap().archive().unwrap()).unwrap();
    archive
}

/// A cluster, and the command line beside it.
pub(crate) struct Shell(pub(crate) Cluster);

impl Shell {
    fn start() -> Self {
        let cluster = Cluster::start(&Options::default());
        cluster.deploy_healthy(HELLO, &with_a_shell(&cluster));
        Self(cluster)
    }

    pub(crate) fn tucano(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.on_network(programs().join("tucano"));
        command.args(["--api", &self.0.api()]);
        command.env("TUCANO_CA_FILE", self.0.ca_file());
        command.env("TUCANO_TOKEN", TOKEN).args(arguments);
        command
    }

    /// Runs a script in a process's container.
    pub(crate) fn exec(&self, name: &str, script: &str, input: &[u8]) -> Output {
        let words = ["exec", name, "--", "/bin/busybox", "sh", "-c", script];
        let mut child = self
            .tucano(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn a_command_runs_in_the_container_of_its_process() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let shell = Shell::start();
    // Each process by its name, and one of a service's.
    for process in shell.0.processes("hello") {
        let id = process.report.id.as_str();
        let said = shell.exec(id, "echo $TUCANO_PROCESS $TUCANO_NODE; busybox id -u", b"");
        let expected = format!("{id} {}\n1000\n", process.node);
        assert_eq!(text(&said.stdout), expected, "{said:?}");
        assert_eq!(said.status.code(), Some(0));
    }
    let said = shell.exec(
        "hello",
        "busybox sha256sum; echo wrong >&2; exit 7",
        &[b'x'; 1 << 20],
    );
    assert_eq!(said.status.code(), Some(7), "{said:?}");
    // Of a mebibyte of the letter.
    let sum = "8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b";
    assert!(text(&said.stdout).starts_with(sum), "{said:?}");
    assert_eq!(text(&said.stderr), "wrong\n");
    let much = shell.exec("hello", "busybox seq 1 200000", b"");
    assert!(text(&much.stdout).ends_with("\n200000\n"));
    // What cannot be run has an exit code that commands do not have.
    for (name, command, part) in [
        ("hello", "/no/such", "no such program"),
        ("nobody", "/bin/busybox", "there is no service nobody"),
        ("hello-99", "/bin/busybox", "there is no process hello-99"),
    ] {
        let refused = shell
            .tucano(&["exec", name, "--", command])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(125), "{refused:?}");
        assert!(text(&refused.stderr).contains(part), "{refused:?}");
    }
    let mut stranger = shell.tucano(&["exec", "hello", "--", "/bin/busybox"]);
    let refused = stranger.env("TUCANO_TOKEN", "wrong").output().unwrap();
    assert!(text(&refused.stderr).contains("token"), "{refused:?}");
    assert!(
        !shell.0.logs().contains("sha256sum"),
        "commands are not logged"
    );
}

#[test]
fn who_sits_at_a_terminal_has_one_inside() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let shell = Shell::start();
    let line = format!(
        "{} --api {} --ca-file {} exec hello -- /bin/busybox sh -c 'busybox tty; echo $TERM; exit 3'",
        programs().join("tucano").display(),
        shell.0.api(),
        shell.0.ca_file().display(),
    );
    // A terminal of its own.
    let said = shell
        .0
        .on_network("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TUCANO_TOKEN", TOKEN)
        .env("TERM", "vt220")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    assert!(
        text(&said.stdout).contains("/dev/pts/0\r\nvt220\r\n"),
        "{said:?}"
    );
}
