//! The command line.

use xtask::{Error, Result};

/// Printed by `cargo xtask help`.
pub(crate) const HELP: &str = "\
Tasks of the workspace.

Usage: cargo xtask <task> [options]

  demo         Start a cluster of a controller and three workers on this machine, deploy images/hello and send it requests
                 --once                 end it after the first answer of each process, and check that nothing remains
                 --api-port <port>      the API's on the loopback interface [default: 7070]
                 --balancer-port <port> the balancer's [default: 8080]
  test         Run all tests; install what they need first. Further arguments are cargo test's
                 -p, --package <crate>  only this crate's tests: only their needs are installed
                 --long                 also the sizes that take longer than CI should
  check        Formatting, lints and unit tests: an answer within ten minutes, without root
  setup        Only install what demo and test need from the system
  images       Build the sample services' images into target/images
  package      Build static programs and their Debian packages into target/packages
  book         Build the documentation into target/book, and check its links
  recording    Record the demo as docs/demo.svg
  conformance  Run another project's validation suite for tucano_oci beside runc and crun
  deny         Check the dependencies' licences, sources and known vulnerabilities
";

/// Tasks that `xtask_tasks` does.
const OTHERS: [&str; 6] = [
    "images",
    "package",
    "book",
    "recording",
    "conformance",
    "deny",
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    Demo(Demo),
    Test(Test),
    Check,
    Setup,
    Other {
        name: &'static str,
        arguments: Vec<String>,
    },
}

/// Options of `demo`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Demo {
    pub(crate) once: bool,
    pub(crate) api_port: Option<u16>,
    pub(crate) balancer_port: Option<u16>,
}

/// Options of `test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Test {
    /// The crates whose tests are run; all when empty.
    pub(crate) packages: Vec<String>,
    /// The integration tests that are run; all when empty.
    pub(crate) targets: Vec<String>,
    pub(crate) long: bool,
    /// For cargo, those of `packages` and `targets` too.
    pub(crate) cargo: Vec<String>,
}

/// Reads the arguments after `cargo xtask`.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Task> {
    let mut arguments = arguments.peekable();
    let Some(name) = arguments.next() else {
        return Ok(Task::Help);
    };
    match name.as_str() {
        "help" | "--help" | "-h" => Ok(Task::Help),
        "demo" | "test" | "check" | "setup"
            if arguments
                .peek()
                .is_some_and(|next| next == "--help" || next == "-h") =>
        {
            Ok(Task::Help)
        }
        "demo" => demo(arguments).map(Task::Demo),
        "test" => test(arguments).map(Task::Test),
        "check" => none(arguments, Task::Check),
        "setup" => none(arguments, Task::Setup),
        _ => match OTHERS.into_iter().find(|other| *other == name) {
            Some(name) => Ok(Task::Other {
                name,
                arguments: arguments.collect(),
            }),
            None => Err(Error::new(format!("there is no task `{name}`"))),
        },
    }
}

fn none(mut arguments: impl Iterator<Item = String>, task: Task) -> Result<Task> {
    match arguments.next() {
        None => Ok(task),
        Some(argument) => Err(Error::new(format!("unexpected argument `{argument}`"))),
    }
}

fn demo(mut arguments: impl Iterator<Item = String>) -> Result<Demo> {
    let mut demo = Demo::default();
    while let Some(argument) = arguments.next() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        match flag.as_str() {
            "--once" if value.is_none() => demo.once = true,
            "--api-port" => demo.api_port = Some(port(&flag, value.or_else(|| arguments.next()))?),
            "--balancer-port" => {
                demo.balancer_port = Some(port(&flag, value.or_else(|| arguments.next()))?);
            }
            _ => return Err(Error::new(format!("unexpected argument `{flag}`"))),
        }
    }
    Ok(demo)
}

fn port(flag: &str, value: Option<String>) -> Result<u16> {
    let value = value.unwrap_or_default();
    value.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Error::new(format!(
            "{flag} takes a port from 1 to 65535, not `{value}`"
        ))
    })
}

fn test(mut arguments: impl Iterator<Item = String>) -> Result<Test> {
    let mut test = Test::default();
    while let Some(argument) = arguments.next() {
        if argument == "--long" {
            test.long = true;
            continue;
        }
        if argument == "--" {
            test.cargo.push(argument);
            test.cargo.extend(arguments.by_ref());
            break;
        }
        let (flag, mut value) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument.clone(), None),
        };
        test.cargo.push(argument);
        let list = match flag.as_str() {
            "-p" | "--package" => &mut test.packages,
            "--test" => &mut test.targets,
            _ => continue,
        };
        if value.is_none() {
            value = arguments.next();
            test.cargo.extend(value.clone());
        }
        match value {
            Some(value) => list.push(value),
            None => return Err(Error::new(format!("{flag} takes a name"))),
        }
    }
    Ok(test)
}

#[cfg(test)]
mod tests;
