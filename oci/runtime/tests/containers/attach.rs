//! The attach socket: output and signals.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use tucano_oci_runtime::{
    attach_client::{self, Output},
    supervisor::Error,
};
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, program};

#[test]
fn output_and_exit_are_streamed() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["count"]);
    case.start();
    wait_until("its output", TIMEOUT, || case.stdout().contains("9\n"));
    let mut attached = attach_client::attach(&case.home()).unwrap();
    let mut seen = String::new();
    while seen.lines().count() < 20 {
        match attached.next_output().unwrap() {
            Some(Output::Stdout(bytes)) => seen += &String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    // Earlier output is only in the log; later output is in both.
    let logged = case.stdout();
    let (before, _) = logged.split_once(&seen).unwrap();
    assert!(before.starts_with("1\n2\n"), "{before}");
    attach_client::signal(&case.home(), 9).unwrap();
    while attached.next_output().unwrap().is_some() {}
    // The exit status is on disk by now.
    assert_eq!(case.wait_for_exit().signal, Some(9));
    assert!(matches!(
        attach_client::attach(&case.home()),
        Err(Error::Ended)
    ));
    assert!(!case.home().join("attach").exists());
}

#[test]
fn the_attach_command_exits_like_the_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["count"]);
    case.start();
    let mut attached = Command::new(program())
        .arg("attach")
        .arg(case.home())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(attached.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.trim().parse::<u64>().is_ok(), "{line}");
    let door = case.home().join("attach");
    // Only root can connect.
    assert_eq!(fs::metadata(&door).unwrap().permissions().mode() & 0o022, 0);
    let status = Command::new(program())
        .arg("signal")
        .arg(case.home())
        .arg("KILL")
        .status()
        .unwrap();
    assert!(status.success());
    let output = attached.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(case.wait_for_exit().signal, Some(9));
}

/// A naive supervisor blocks on a client that does not read.
#[test]
fn a_slow_attach_client_does_not_block_the_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["spam", "2000000"]);
    case.start();
    // They never read.
    let attached: Vec<_> = (0..8)
        .filter_map(|_| attach_client::attach(&case.home()).ok())
        .collect();
    assert_eq!(case.wait_for_exit().code, Some(0));
    drop(attached);
}
