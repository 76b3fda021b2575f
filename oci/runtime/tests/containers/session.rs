//! Sessions in a running container, as the agent starts them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use tucano_oci_session::{Begin, Decoder, End, Frame, FromClient, Size, Terminal, ToClient};
use tucano_testkit::{Need, ROOT, find_tool, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, program};

const NEEDS: [Need; 3] = [ROOT, tool("ldd"), tool("busybox")];

/// A container with a shell.
fn started() -> Case {
    started_as(None)
}

fn started_as(user: Option<&str>) -> Case {
    let mut case = Case::new(&["wait-after", "up"]);
    case.user = user.map(str::to_owned);
    fs::create_dir_all(case.layer().join("bin")).unwrap();
    let shell = case.layer().join("bin/busybox");
    fs::copy(find_tool("busybox").unwrap(), &shell).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    drop(case.start());
    wait_until("its output", TIMEOUT, || case.stdout().contains("up"));
    case
}

/// The client's end of a session.
struct Session {
    runtime: Child,
    input: Option<ChildStdin>,
    decoder: Decoder,
    output: String,
    error_output: String,
    end: Option<End>,
}

impl Session {
    fn of(case: &Case) -> Self {
        let mut runtime = Command::new(program())
            .arg("session")
            .arg(case.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: runtime.stdin.take(),
            runtime,
            decoder: Decoder::default(),
            output: String::new(),
            error_output: String::new(),
            end: None,
        }
    }

    fn run(case: &Case, script: &str) -> Self {
        let mut session = Self::of(case);
        session.send(&begin(script, None));
        session
    }

    fn send(&mut self, frame: &FromClient) {
        let input = self.input.as_mut().unwrap();
        input.write_all(&frame.encode()).unwrap();
    }

    fn type_in(&mut self, text: &str) {
        self.send(&FromClient::Input(text.into()));
    }

    /// Reads frames until a condition holds or the session ends.
    fn until(&mut self, is_true: impl Fn(&Self) -> bool) {
        while !is_true(self) {
            let mut buffer = [0; 4096];
            let length = self.runtime.stdout.as_mut().unwrap().read(&mut buffer);
            let length = length.unwrap();
            assert!(length > 0, "it closed after {:?}", self.output);
            self.decoder.push(&buffer[..length]);
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                match frame {
                    ToClient::Output(bytes) => self.output += str::from_utf8(&bytes).unwrap(),
                    ToClient::ErrorOutput(bytes) => {
                        self.error_output += str::from_utf8(&bytes).unwrap();
                    }
                    ToClient::End(end) => self.end = Some(end),
                }
            }
        }
    }

    fn end(mut self) -> (String, String, End) {
        self.until(|session| session.end.is_some());
        assert!(self.runtime.wait().unwrap().success());
        (self.output, self.error_output, self.end.unwrap())
    }
}

fn begin(script: &str, terminal: Option<Terminal>) -> FromClient {
    let words = ["busybox", "sh", "-c", script];
    FromClient::Begin(Begin {
        command: words.map(str::to_owned).to_vec(),
        terminal,
    })
}

fn terminal() -> Option<Terminal> {
    Some(Terminal {
        name: Some("vt220".into()),
        size: Size {
            columns: 101,
            rows: 33,
        },
    })
}

#[test]
fn outputs_and_exit_code_are_returned() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let session = Session::run(&case, "echo $GREETING; echo wrong >&2; exit 3");
    let expected = ("hello\n".to_owned(), "wrong\n".to_owned(), End::Exited(3));
    assert_eq!(session.end(), expected);
    let (_, _, end) = Session::run(&case, "kill -9 $$").end();
    assert_eq!(end, End::Exited(128 + 9));
}

#[test]
fn input_and_bulk_output_are_relayed() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let mut session = Session::run(&case, "busybox wc -c; busybox seq 1 100000");
    for _ in 0..50 {
        session.send(&FromClient::Input(vec![b'x'; 10_000]));
    }
    session.send(&FromClient::Input(Vec::new()));
    let (output, _, end) = session.end();
    assert!(output.starts_with("500000\n1\n2\n"), "{:.100}", output);
    assert!(output.ends_with("\n99999\n100000\n"));
    assert_eq!(end, End::Exited(0));
}

#[test]
fn a_terminal_is_the_containers_own_and_has_the_clients_size() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let mut session = Session::of(&case);
    // The trap of SIGWINCH interrupts `read`.
    let script = "busybox tty; echo $TERM; trap 'echo changed' WINCH; busybox stty size; \
                  busybox stat -c %u $(busybox tty); until read word; do :; done; \
                  busybox stty size; echo \"[$word]\"";
    session.send(&begin(script, terminal()));
    session.until(|session| session.output.contains("33 101\r\n0\r\n"));
    session.send(&FromClient::Resize(Size {
        columns: 70,
        rows: 20,
    }));
    session.type_in("word\r");
    let (output, error_output, end) = session.end();
    assert!(output.starts_with("/dev/pts/"), "{output}");
    assert!(output.contains("\r\nvt220\r\n"), "{output}");
    assert!(output.contains("changed\r\n"), "{output}");
    assert!(output.contains("20 70\r\n"), "{output}");
    assert!(output.ends_with("[word]\r\n"), "{output}");
    assert_eq!((error_output.as_str(), end), ("", End::Exited(0)));
}

#[test]
fn ctrl_c_interrupts_the_command_in_a_terminal() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let mut session = Session::of(&case);
    session.send(&begin("echo ready; busybox sleep 1000", terminal()));
    session.until(|session| session.output.contains("ready"));
    session.type_in("\x03");
    let (_, _, end) = session.end();
    assert_eq!(end, End::Exited(128 + 2));
}

#[test]
fn a_disconnected_clients_command_is_killed() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    for terminal in [None, terminal()] {
        let before = case.cgroup().processes().len();
        let mut session = Session::of(&case);
        session.send(&begin("echo ready; busybox sleep 1000; true", terminal));
        session.until(|session| session.output.contains("ready"));
        // Nobody has read this.
        session.type_in(&"x".repeat(1000));
        session.input = None;
        wait_until("the end of what it ran", TIMEOUT, || {
            case.cgroup().processes().len() == before
        });
        session.runtime.wait().unwrap();
    }
}

#[test]
fn protocol_violations_are_reported() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let failure = |frames: &[&[u8]]| {
        let mut session = Session::of(&case);
        for frame in frames {
            session.input.as_mut().unwrap().write_all(frame).unwrap();
        }
        match session.end() {
            (_, _, End::Failed(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    let run = |command: &[&str]| {
        let command = command.iter().map(ToString::to_string).collect();
        let terminal = None;
        FromClient::Begin(Begin { command, terminal }).encode()
    };
    assert!(failure(&[b"GET / HTTP/1.1\r\n\r\n"]).contains("at most 65536 are allowed"));
    let early = FromClient::Input(b"x".to_vec()).encode();
    assert!(failure(&[&early]).contains("the first frame is not a command"));
    assert!(failure(&[&run(&[])]).contains("the command is empty"));
    let missing = failure(&[&run(&["/missing"])]);
    assert!(missing.contains("no such program"), "{missing}");
    let twice = run(&["busybox", "sleep", "1000"]);
    assert!(failure(&[&twice, &twice]).contains("a second command"));
}

#[test]
fn a_session_in_an_exited_container_fails() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new(&["exit", "0"]);
    case.run();
    let (_, _, end) = Session::run(&case, "true").end();
    assert_eq!(end, End::Failed("container: it does not run".into()));
}

#[test]
fn a_command_can_open_its_streams_again() {
    if !needs(&NEEDS) {
        return;
    }
    for user in [None, Some("web")] {
        let case = started_as(user);
        let script = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr";
        let mut session = Session::run(&case, script);
        session.type_in("in\n");
        session.send(&FromClient::Input(Vec::new()));
        let (output, error_output, end) = session.end();
        assert_eq!(
            (output.as_str(), error_output.as_str()),
            ("in\nout\n", "err\n")
        );
        assert_eq!(end, End::Exited(0));
    }
}

#[test]
fn a_command_can_look_into_the_containers_program() {
    if !needs(&NEEDS) {
        return;
    }
    let case = started();
    let script = "busybox ls /proc/1/root/ /proc/1/fd > /dev/null && busybox cat /proc/1/environ";
    let (output, error_output, end) = Session::run(&case, script).end();
    assert!(output.contains("GREETING=hello"), "{output} {error_output}");
    assert_eq!(end, End::Exited(0));
}
