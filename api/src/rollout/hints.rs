//! What may help a process that does not become healthy, by its exit, by the addresses that it listens on and by its output.

use std::net::SocketAddr;

use crate::{
    agent::{ProcessReport, ProcessState},
    service::{Probe, ServiceConfig},
};

/// What may help, most likely first.
pub fn hints(config: &ServiceConfig, report: &ProcessReport, log: &[String]) -> Vec<String> {
    let mut hints = Vec::new();
    hints.extend(of_exit(config, report));
    hints.extend(of_start(report));
    hints.extend(of_port(config, report));
    hints.extend(of_probe(config, report));
    let log = log.join("\n").to_lowercase();
    hints.extend(of_log(config, &log));
    hints
}

fn of_exit(config: &ServiceConfig, report: &ProcessReport) -> Option<String> {
    let exit = report
        .last_exit
        .filter(|_| report.state == ProcessState::BackOff)?;
    if exit.oom_killed {
        let memory = config.memory;
        return Some(format!(
            "raise `memory`, which is {memory}, or let the program use less"
        ));
    }
    if exit.disk_exceeded {
        let disk = config.disk;
        return Some(format!(
            "raise `disk`, which is {disk}, or let the program write less"
        ));
    }
    let hint = match exit.code? {
        0 => "the program ended by itself: a service's program must stay in the foreground",
        126 => "a program of the image is not executable",
        127 => {
            "the image does not contain a program that it runs: see `args`, and Entrypoint and Cmd of the image"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// A program that could not be started at all.
fn of_start(report: &ProcessReport) -> Option<String> {
    let reason = report.reason.as_deref()?.to_lowercase();
    if report.state != ProcessState::BackOff {
        return None;
    }
    let hint = if reason.contains("exec format error") {
        "the program is for another architecture, or a script without a `#!` line"
    } else if reason.contains("no such file or directory") || reason.contains("not found") {
        "the image does not contain the program, its interpreter or a library of it: see `args`, and Entrypoint and Cmd of the image"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// A program that listens elsewhere.
fn of_port(config: &ServiceConfig, report: &ProcessReport) -> Option<String> {
    let listening = report.listening.as_ref()?;
    if !matches!(
        report.state,
        ProcessState::Starting | ProcessState::Unhealthy | ProcessState::BackOff
    ) {
        return None;
    }
    let port = config.probed_port()?;
    let (same, others): (Vec<&SocketAddr>, Vec<&SocketAddr>) =
        listening.iter().partition(|address| address.port() == port);
    if same.iter().any(|address| !address.ip().is_loopback()) {
        return None;
    }
    if let Some(address) = same.first() {
        return Some(format!(
            "the program listens on {address} only: let it listen on all addresses, 0.0.0.0:{port} or [::]:{port}"
        ));
    }
    if others.is_empty() {
        return (report.state != ProcessState::BackOff)
            .then(|| format!("the program listens on no TCP port; port {port} is expected"));
    }
    let addresses: Vec<_> = others.iter().map(ToString::to_string).collect();
    let other = others[0].port();
    Some(format!(
        "the program listens on {}, not on port {port}: write `port = {other}`, or let it listen on {port}",
        addresses.join(", ")
    ))
}

fn of_probe(config: &ServiceConfig, report: &ProcessReport) -> Option<String> {
    let Probe::Http(path) = config.health.probe() else {
        return None;
    };
    let reason = report.reason.as_deref()?;
    reason.contains("answered with status").then(|| {
        format!(
            "the probe needs a status below 400: let GET {path} answer so, or change `health.http`"
        )
    })
}

/// By phrases of libc's messages.
fn of_log(config: &ServiceConfig, log: &str) -> Vec<String> {
    let mut hints = Vec::new();
    let is_denied = log.contains("operation not permitted") || log.contains("permission denied");
    let needs_capability = [
        "chown",
        "setuid",
        "setgid",
        "setgroups",
        "initgroups",
        "change owner",
        "drop privileges",
    ];
    if is_denied && config.caps.is_empty() && needs_capability.iter().any(|word| log.contains(word))
    {
        hints.push(
            "programs that start as root and change their user need capabilities: write `caps = \"web\"`"
                .to_owned(),
        );
    }
    if log.contains("read-only file system") && config.read_only {
        hints.push(
            "with `read_only = true` only /tmp and /dev/shm are writable: write there, or remove `read_only`"
                .to_owned(),
        );
    }
    if log.contains("no space left on device") {
        hints.push("raise `disk`, or with `read_only` the key `tmp_size`".to_owned());
    }
    if log.contains("address already in use") {
        hints.push("two programs of the container listen on the same port".to_owned());
    }
    hints
}
