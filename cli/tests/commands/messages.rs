//! Every help text and every error message of the program. `INSTA_UPDATE=always` accepts a change.

use std::{fmt::Write, fs, path::Path, process::Command};

use serde_json::json;

use crate::controller::Controller;

/// What a command line prints, and how it ends.
struct Run {
    directory: tempfile::TempDir,
    api: String,
}

impl Run {
    /// Against a controller that answers each request with this status and error.
    fn answering(status: u16, code: &str, error: &str) -> (Self, Controller) {
        let body = json!({ "error": error, "code": code }).to_string();
        let controller = Controller::answering(status, &body);
        (
            Self::new(&format!("http://{}", controller.address)),
            controller,
        )
    }

    fn new(api: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            api: api.to_owned(),
        }
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// In the directory, so that paths in messages are the same everywhere.
    fn tucano(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tucano"));
        for name in ["TUCANO_TOKEN", "TUCANO_CA_FILE", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(name);
        }
        command
            .env("TUCANO_API", &self.api)
            .env("PATH", "/nowhere")
            .current_dir(self.directory.path())
            .args(arguments);
        let output = command.output().unwrap();
        let mut text = format!("$ tucano {}\n", arguments.join(" "));
        for stream in [&output.stdout, &output.stderr] {
            text += &self.without_addresses(&String::from_utf8_lossy(stream));
        }
        writeln!(text, "[exit code {}]", output.status.code().unwrap()).unwrap();
        text
    }

    fn without_addresses(&self, text: &str) -> String {
        let directory = self.directory.path().display().to_string();
        let program = Path::new(env!("CARGO_BIN_EXE_tucano"))
            .display()
            .to_string();
        text.replace(&self.api, "http://CONTROLLER")
            .replace(&directory, "DIRECTORY")
            .replace(&program, "tucano")
    }
}

const CONFIG: &str = "name = \"hello\"\nconcurrency = 1\nport = 8080\nimage = \"hello.tar\"\n";

#[test]
fn help_of_the_program_and_of_each_command() {
    let run = Run::new("http://127.0.0.1:7070");
    let commands = tucano_cli::args::command();
    let names = commands.get_subcommands().map(clap::Command::get_name);
    let mut help = run.tucano(&["--help"]);
    for name in names {
        write!(help, "\n{}", run.tucano(&[name, "--help"])).unwrap();
        let below = commands.find_subcommand(name).into_iter();
        for below in below.flat_map(clap::Command::get_subcommands) {
            let help_of = run.tucano(&[name, below.get_name(), "--help"]);
            write!(help, "\n{help_of}").unwrap();
        }
    }
    insta::assert_snapshot!(help);
}

#[test]
fn errors_of_the_command_line() {
    let run = Run::new("http://127.0.0.1:1");
    let lines: [&[&str]; 13] = [
        &["fly"],
        &["--json", "fly"],
        &["deploy"],
        &["scale", "hello", "0"],
        &["scale", "Hello", "1"],
        &["ps", "--colour"],
        &["logs", "../nodes"],
        &["deploy", "a.toml", "--timeout", "soon"],
        &["ps", "--token", "a", "--token-file", "b"],
        &["check", "a.toml", "--token", "a"],
        &["--api", "ftp://a", "ps"],
        &["--api", "https://a", "--ca-file", "absent.pem", "ps"],
        &["dev", "--api", "0.0.0.0:7070"],
    ];
    let all: Vec<_> = lines.iter().map(|line| run.tucano(line)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn errors_of_configurations_and_images() {
    let (run, _controller) =
        Run::answering(404, "no_such_image", "no registry has the image hello:9");
    run.file("hello.toml", CONFIG);
    run.file(
        "wrong.toml",
        "nam = \"hello\"\nconcurrency = 0\nport = 8080\nimage = 7\n",
    );
    run.file(
        "wrong.json",
        "{ \"name\": \"hello\",\n  \"port\": 8080, }\n",
    );
    run.file("none.toml", &CONFIG.replace("image = \"hello.tar\"\n", ""));
    run.file("tag.toml", &CONFIG.replace("hello.tar", "hello:9"));
    run.file("huge.toml", &"#".repeat(1_100_000));
    run.file("empty/readme", "");
    let lines: [&[&str]; 12] = [
        &["check", "wrong.toml"],
        &["--json", "check", "wrong.toml"],
        &["check", "wrong.json"],
        &["check", "absent.toml"],
        &["check", "hello.toml"],
        &["--json", "check", "hello.toml"],
        &["deploy", "hello.toml"],
        &["deploy", "none.toml"],
        &["deploy", "hello.toml", "--image", "empty"],
        &["deploy", "tag.toml"],
        &["--json", "deploy", "tag.toml"],
        &["deploy", "huge.toml"],
    ];
    // `check ctl.toml` is not here: its answer depends on the programs beside `tucano`.
    let all: Vec<_> = lines.iter().map(|line| run.tucano(line)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn errors_of_the_controller() {
    let answers = [
        (400, "bad_request", "the parameter tail is not a number"),
        (401, "unauthorized", "the token is missing"),
        (403, "forbidden", "this token may not do that"),
        (404, "not_found", "there is no service hello"),
        (
            409,
            "host_taken",
            "the host a.example belongs to the service web",
        ),
        (
            429,
            "too_many_uploads",
            "4 uploads are in progress already (limits.uploads)",
        ),
        (503, "stopping", "the controller is stopping"),
        (507, "disk_full", "the disk is full"),
    ];
    let mut all = Vec::new();
    for (status, code, error) in answers {
        let (run, _controller) = Run::answering(status, code, error);
        all.push(run.tucano(&["ps", "hello"]));
        all.push(run.tucano(&["--json", "ps", "hello"]));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn errors_of_the_connection_and_the_token() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let run = Run::new(&format!("http://{gone}"));
    let mut all = vec![run.tucano(&["ps"]), run.tucano(&["--json", "ps"])];
    all.push(run.tucano(&["ps", "--token-file", "absent"]));
    all.push(run.tucano(&["exec", "hello", "--", "sh"]));
    let controller = Controller::answering(200, "<html>");
    let run = Run::new(&format!("http://{}", controller.address));
    all.push(run.tucano(&["services"]));
    let controller = Controller::answering(502, "<html>");
    let run = Run::new(&format!("http://{}", controller.address));
    all.push(run.tucano(&["services"]));
    insta::assert_snapshot!(all.join("\n"));
}
