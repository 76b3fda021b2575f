//! The processes of a virtual host, read from /proc: no program of the host is asked.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process of a host, in its own PID namespace or in one below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its PID for the test.
    pub pid: Pid,
    /// Its PID on the host.
    pub pid_on_host: i32,
    /// Its command line, separated by spaces; empty for a process that has ended and is not waited for yet.
    pub arguments: String,
}

impl Process {
    /// kill -9.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&self) {
        kill_process(self.pid, Signal::KILL).expect("the process is there");
    }

    /// kill -9, unless it has ended.
    pub fn try_kill(&self) {
        kill_process(self.pid, Signal::KILL).ok();
    }
}

/// Every process of the host whose init has this PID.
pub fn of_host(init: i32) -> Vec<Process> {
    let on_host = PathBuf::from(format!("/proc/{init}/root/proc"));
    let namespaces: BTreeSet<PathBuf> = pids(&on_host)
        .into_iter()
        .filter_map(|pid| namespace(&on_host, pid))
        .collect();
    let own = Path::new("/proc");
    let is_there = |pid: &i32| namespace(own, *pid).is_some_and(|it| namespaces.contains(&it));
    pids(own)
        .into_iter()
        .filter(is_there)
        .filter_map(|pid| read(own, pid))
        .collect()
}

fn pids(proc: &Path) -> Vec<i32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The PID namespace of a process, such as `pid:[4026531836]`.
fn namespace(proc: &Path, pid: i32) -> Option<PathBuf> {
    fs::read_link(proc.join(pid.to_string()).join("ns/pid")).ok()
}

/// `None` for a process that has ended since it was listed.
fn read(proc: &Path, pid: i32) -> Option<Process> {
    let directory = proc.join(pid.to_string());
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let arguments = fs::read(directory.join("cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    Some(Process {
        pid: Pid::from_raw(pid)?,
        pid_on_host: second_pid(&status)?,
        arguments: arguments.trim_end().to_owned(),
    })
}

/// `NSpid:` has the reader's number first, then one for each namespace below.
fn second_pid(status: &str) -> Option<i32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_hosts() {
        assert_eq!(second_pid("Name:\tx\nNSpid:\t812\t14\t1\n"), Some(14));
        assert_eq!(second_pid("Name:\tx\nNSpid:\t812\n"), None);
    }

    #[test]
    fn a_process_is_read_from_proc() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(pids(Path::new("/proc")).contains(&own));
        assert!(namespace(Path::new("/proc"), own).is_some());
    }
}
