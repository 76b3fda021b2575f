//! `exec`: runs another process in a container.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use rustix::process::{Signal, pidfd_send_signal};
use tucano_oci_user::Wanted;

use super::{
    Error,
    create::{close_descriptors, send_pidfd, terminal_or_streams, write_pid},
    relay::{self, Relay},
    run,
    store::{Status, Store},
};
use crate::{
    bundle,
    channel::{Failure, Step},
    container::{start_options::StartOptions, userns::UserNamespace},
    exec::{Child, ExecProcess},
};

/// Parameters of an `exec`.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The container's id.
    pub id: String,
    /// Program and arguments; empty: those of the process file.
    pub command: Vec<String>,
    /// File with a `process` object. Replaces the options below, except for the streams.
    pub process_file: Option<PathBuf>,
    /// `NAME=value`; overrides the container's variable of that name.
    pub env: Vec<String>,
    /// Working directory; the container's own by default.
    pub cwd: Option<PathBuf>,
    /// `uid` or `uid:gid`; the container's own by default.
    pub user: Option<String>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Capabilities added to the container's own.
    pub capabilities: Vec<String>,
    /// AppArmor profile; the container's own by default.
    pub apparmor_profile: Option<String>,
    /// SELinux label; the container's own by default.
    pub selinux_label: Option<String>,
    /// Set no_new_privs. It stays set if the container's process has it.
    pub no_new_privileges: bool,
    /// Allocate a terminal.
    pub terminal: bool,
    /// Listening socket that receives the terminal.
    pub console_socket: Option<PathBuf>,
    /// Sub-cgroups of the container's to run it in: `PATH`, or `CONTROLLER:PATH` on v1.
    pub cgroups: Vec<String>,
    /// Listening socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// File that receives the pid.
    pub pid_file: Option<PathBuf>,
    /// Number of the caller's descriptors, from 3 on, to pass on.
    pub preserve_fds: u32,
    /// Do not wait for the exit.
    pub detach: bool,
    /// Allow it in a paused container, where the process waits.
    pub ignore_paused: bool,
}

/// Runs the command. Returns its exit code, or 0 if detached. `warn` is called for what is ignored.
pub fn exec(store: &Store, wanted: &Exec, warn: &dyn Fn(&str)) -> Result<i32, Error> {
    close_descriptors(wanted.preserve_fds)?;
    let container = store.find(&wanted.id)?;
    let status = container.status();
    let allowed = match status {
        Status::Created | Status::Running => true,
        Status::Paused => wanted.ignore_paused,
        Status::Creating | Status::Stopped => false,
    };
    let first = container.record.container.filter(|_| allowed);
    let refused = || Error::Status {
        operation: "exec in",
        id: wanted.id.clone(),
        status,
    };
    let first = first.ok_or_else(refused)?;
    let spec = &container.record.spec;
    let (mut process, warnings) = process(spec, wanted)?;
    warnings.iter().for_each(|warning| warn(warning));
    let (stdio, terminal) = terminal_or_streams(
        process.terminal() == Some(true),
        wanted.console_socket.as_deref(),
        wanted.detach,
    )?;
    if terminal.is_some() {
        relay::size_like_own(&mut process);
    }
    let signals = (!wanted.detach).then(run::block).transpose()?;
    let process_to_join = ExecProcess {
        options: StartOptions {
            dies_with_parent: !wanted.detach,
            landlock: false,
            preserve_fds: wanted.preserve_fds,
            reset_affinity: true,
            state: container.state(oci_spec::runtime::ContainerState::Running),
            ..StartOptions::supervised(stdio)
        },
        spec,
        process: &process,
        user: None,
        target: first.open().step("container")?.ok_or_else(refused)?,
        namespace: UserNamespace::of(spec, first.pid)?,
        command: process.args().as_deref().unwrap_or_default(),
    };
    let cgroup = container.record.cgroup.below(&wanted.cgroups)?;
    let child = process_to_join.start(&cgroup)?;
    if let Some(path) = &wanted.pidfd_socket {
        send_pidfd(path, "setns", &child.process).inspect_err(|_| child.kill())?;
    }
    if let Some(path) = &wanted.pid_file {
        write_pid_file(path, &child)?;
    }
    match signals {
        Some(signals) => {
            let relay = terminal.map(Relay::begin).transpose()?;
            run::wait_for(&child.process, &signals, relay)
        }
        None => Ok(0),
    }
}

fn write_pid_file(path: &Path, child: &Child) -> Result<(), Failure> {
    write_pid(path, child.pid)
        .inspect_err(|_| {
            pidfd_send_signal(child.process.as_fd(), Signal::KILL).ok();
        })
        .map_err(|error| format!("{}: {error}", path.display()))
        .step("pid file")
}

/// The container's process with the requested changes.
fn process(spec: &Spec, wanted: &Exec) -> Result<(Process, Vec<String>), Error> {
    let (mut process, warnings) = match &wanted.process_file {
        Some(path) => bundle::read_process(path)?,
        None => (changed(spec, wanted)?, Vec::new()),
    };
    if !wanted.command.is_empty() {
        process.set_args(Some(wanted.command.clone()));
    }
    bundle::check_process(&process)?;
    Ok((process, warnings))
}

fn changed(spec: &Spec, wanted: &Exec) -> Result<Process, Failure> {
    let mut process = crate::container::process_of(spec)?.clone();
    process.set_terminal(Some(wanted.terminal));
    process.set_console_size(None);
    if let Some(cwd) = &wanted.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(wanted.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(user) = &wanted.user {
        set_user(&mut process, user).step("--user")?;
    }
    if !wanted.additional_gids.is_empty() {
        let groups = Some(wanted.additional_gids.clone());
        process.user_mut().set_additional_gids(groups);
    }
    if let Some(profile) = &wanted.apparmor_profile {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &wanted.selinux_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if wanted.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &wanted.capabilities).step("--cap")?;
    Ok(process)
}

/// Names are not accepted: the image would decide which user they mean.
fn set_user(process: &mut Process, text: &str) -> Result<(), String> {
    let refused = || format!("{text:?} is not an id: use `uid` or `uid:gid`");
    let wanted = Wanted::parse(text).map_err(|error| error.to_string())?;
    let uid = wanted.user.id().ok_or_else(refused)?;
    let gid = wanted.group.map(|group| group.id().ok_or_else(refused));
    let gid = gid.transpose()?;
    process.user_mut().set_uid(uid);
    if let Some(gid) = gid {
        process.user_mut().set_gid(gid);
    }
    Ok(())
}

/// Not to the inheritable set: programs with file capabilities would inherit them (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), String> {
    for name in names {
        let plain = name.trim_start_matches("CAP_");
        let one: Capability = serde_json::from_value(format!("CAP_{plain}").into())
            .map_err(|_| format!("there is no capability {name:?}"))?;
        let mut sets = process.capabilities().clone().unwrap_or_else(none);
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(one);
            Some(set)
        };
        let (bounding, permitted) = (with(sets.bounding()), with(sets.permitted()));
        let effective = with(sets.effective());
        sets.set_bounding(bounding)
            .set_permitted(permitted)
            .set_effective(effective);
        process.set_capabilities(Some(sets));
    }
    Ok(())
}

/// Empty sets: the library's default is not empty.
fn none() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_permitted(None)
        .set_ambient(None);
    none
}

#[cfg(test)]
mod tests;
