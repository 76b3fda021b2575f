//! Streams, terminals and descriptors.

use std::{
    fs::File,
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::{Command, Stdio},
};

use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{tcgetattr, tcgetwinsize, tcsetwinsize},
};
use tucano_testkit::{needs, wait_for};

use crate::harness::{Case, NEEDS, TIMEOUT};

/// The descriptor that comes over a console socket.
fn received(listener: &UnixListener) -> OwnedFd {
    received_with(listener).0
}

/// The descriptor that comes over a socket, the text that it comes with, and the connection.
pub(crate) fn received_with(listener: &UnixListener) -> (OwnedFd, Vec<u8>, UnixStream) {
    let (connection, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 4096];
    let slices = &mut [IoSliceMut::new(&mut text)];
    let got = recvmsg(&connection, slices, &mut ancillary, RecvFlags::empty()).unwrap();
    text.truncate(got.bytes);
    let descriptor = ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .expect("a descriptor");
    (descriptor, text, connection)
}

/// What is written to a terminal until a line holds `wanted`; its end is an error to who reads it.
fn read_until(terminal: OwnedFd, wanted: &str) -> String {
    let mut terminal = File::from(terminal);
    let mut text = String::new();
    wait_for(wanted, TIMEOUT, || {
        let mut buffer = [0; 256];
        let length = terminal.read(&mut buffer).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        text.contains(wanted).then(|| text.clone())
    })
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(
        "tty; stat -c %u /dev/pts/0; test /dev/console -ef /dev/pts/0; ls /dev/console; stty size; sleep 1000",
    );
    case.config["process"]["terminal"] = true.into();
    case.config["process"]["user"] = serde_json::json!({"uid": 33, "gid": 33});
    case.write();
    let bundle = case.path("");
    let without = case.must_fail(&["create", "-b", bundle.to_str().unwrap(), case.id()]);
    assert!(without.contains("--console-socket"), "{without}");
    let socket = case.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    case.must(&[
        "create",
        "-b",
        bundle.to_str().unwrap(),
        "--console-socket",
        socket.to_str().unwrap(),
        case.id(),
    ]);
    let terminal = received(&listener);
    case.must(&["start", case.id()]);
    let text = read_until(terminal, "/dev/console");
    assert!(text.starts_with("/dev/pts/0\r\n33\r\n"), "{text:?}");
    let second = case.path("second");
    let listener = UnixListener::bind(&second).unwrap();
    case.must(&[
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        second.to_str().unwrap(),
        case.id(),
        "sh",
        "-c",
        "tty; sleep 1000",
    ]);
    read_until(received(&listener), "/dev/pts/1");
}

/// A terminal as a person has it: its outer end, and the one that a program is given.
fn own_terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = openpt(flags).unwrap();
    grantpt(&outer).unwrap();
    unlockpt(&outer).unwrap();
    let inner = ioctl_tiocgptpeer(&outer, flags).unwrap();
    (outer, inner)
}

fn resize(terminal: &OwnedFd, rows: u16) {
    let mut size = tcgetwinsize(terminal).unwrap();
    (size.ws_row, size.ws_col) = (rows, 99);
    tcsetwinsize(terminal, size).unwrap();
}

/// Runs it on a terminal of its own, types a line, and tells the code that it ended with.
fn talk(program: &mut Command) -> i32 {
    let (outer, inner) = own_terminal();
    resize(&outer, 33);
    let before = tcgetattr(&inner).unwrap();
    let stream = || Stdio::from(inner.try_clone().unwrap());
    let mut child = program
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    read_until(outer.try_clone().unwrap(), "33 99\r\n");
    resize(&outer, 44);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    // What was typed is told back by the container's terminal alone.
    rustix::io::write(&outer, b"word\r").unwrap();
    let text = read_until(outer.try_clone().unwrap(), "44 99\r\n");
    assert!(text.contains("got word\r\n"), "{text:?}");
    assert_eq!(text.matches("word").count(), 2, "{text:?}");
    let code = child.wait().unwrap().code().unwrap();
    let after = tcgetattr(&inner).unwrap();
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.output_modes, after.output_modes);
    code
}

const CONVERSATION: &str =
    "tty; stty size; read x; echo got $x; while ! stty size | grep 44; do sleep 0.1; done; exit 4";

#[test]
fn a_foreground_terminal_is_relayed_to_the_caller() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(CONVERSATION);
    case.config["process"]["terminal"] = true.into();
    case.write();
    let mut run = case.program();
    run.args(["run", "--bundle"])
        .arg(case.path(""))
        .arg(case.id());
    assert_eq!(talk(&mut run), 4);
    assert!(case.is_gone());
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let mut exec = case.program();
    exec.args(["exec", "--tty", case.id(), "sh", "-c", CONVERSATION]);
    assert_eq!(talk(&mut exec), 4);
    let detached = case.must_fail(&["exec", "--tty", "--detach", case.id(), "true"]);
    assert!(detached.contains("--console-socket"), "{detached}");
}

#[test]
fn only_preserved_descriptors_are_inherited() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("ls /proc/self/fd");
    case.write();
    // The shell opens 3 and 4, as a careless caller would.
    let with = |option: &str| {
        let program = case.program();
        let program = program.get_program().to_str().unwrap();
        let line = format!(
            "exec 3</etc 4</etc; exec {program} --root {} run {option} --bundle {} {}",
            case.path("state").display(),
            case.path("").display(),
            case.id()
        );
        let output = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // One more is the directory that is read.
    assert_eq!(with(""), "0\n1\n2\n3\n");
    assert_eq!(with("--preserve-fds 2"), "0\n1\n2\n3\n4\n5\n");
}

#[test]
fn every_user_may_use_the_default_devices() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo x > /dev/null && stat -c %a /dev/null /dev/zero /dev/tty");
    case.config["process"]["user"] = serde_json::json!({"uid": 33, "gid": 33});
    let output = case.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "666\n666\n666\n",
        "{output:?}"
    );
}

#[test]
fn devices_of_its_own_are_made_whatever_the_rules_say() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("stat -c '%F %t:%T %a %u' /dev/own /dev/pipe; cat < /dev/own");
    case.config["linux"]["devices"] = serde_json::json!([
        {"path": "/dev/own", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 7},
        {"path": "/dev/pipe", "type": "p", "major": 5, "minor": 6, "fileMode": 0o600},
    ]);
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "character special file 1:b 640 7\nfifo 0:0 600 0\n";
    assert_eq!(said, expected, "{output:?}");
    // Made, but not to be opened: no rule allows it.
    let refused = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(refused.contains("not permitted"), "{refused}");
}

#[test]
fn a_closed_stdout_is_an_error_and_not_a_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_tucano_oci"))
        .arg("features")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("stdout: Broken pipe"), "{told}");
}
