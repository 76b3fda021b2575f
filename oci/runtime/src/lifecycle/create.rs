//! `create`: sets a container up, up to the first instruction of its program.

use std::{
    borrow::Cow,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime::{ContainerState, Process, Spec};

use super::{
    Error, end,
    relay::size_like_own,
    store::{Container, Record, Store},
};
use crate::{
    bundle::Bundle,
    cgroup::{Cgroup, CgroupTiming},
    channel::{Failure, Step, send_descriptors},
    container::{
        process::missing_capabilities,
        start_options::{StartOptions, Stdio, duplicate_stdio},
        userns::UserNamespace,
    },
    exe::ReadOnlyProgram,
    hooks,
    launch::{Parts, Rootfs},
    listener::Listener,
    notification,
    start::ContainerStart,
    state_dir::{self, ProcessId},
    sys,
    systemd::{self, Scope},
};

/// Time limit of one step of the start. Hooks have their own time limits.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters of a new container.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// File that receives the pid of its init process.
    pub pid_file: Option<PathBuf>,
    /// Listening socket that receives a pidfd of its init process.
    pub pidfd_socket: Option<PathBuf>,
    /// Listening socket that receives its terminal.
    pub console_socket: Option<PathBuf>,
    /// Number of the caller's descriptors, from 3 on, to pass on.
    pub preserve_fds: u32,
    /// Keep the caller's session keyring.
    pub keep_keyring: bool,
    /// Enter the root without `pivot_root`, for hosts whose root is a ramdisk.
    pub no_pivot: bool,
    /// Let systemd create the cgroup.
    pub systemd_cgroup: bool,
    /// This process does not stay, so the container cannot use its terminal.
    pub detach: bool,
}

/// Creates a container, which then waits for [`super::start`]. Its standard streams are the caller's, or a terminal.
/// Returns warnings.
pub fn create(store: &Store, wanted: &Create) -> Result<Vec<String>, Error> {
    close_descriptors(wanted.preserve_fds)?;
    Ok(create_container(store, wanted, true)?.warnings)
}

/// Warnings about requested features that the host cannot grant.
fn warnings(container: &Container) -> Vec<String> {
    let process = container.record.spec.process().as_ref();
    let missing = process.map(missing_capabilities).unwrap_or_default();
    let warning = |names: &[String]| format!("this host cannot grant {}", names.join(", "));
    (!missing.is_empty())
        .then(|| warning(&missing))
        .into_iter()
        .collect()
}

/// A container that has been created.
pub(super) struct Created {
    pub(super) container: Container,
    pub(super) process: OwnedFd,
    /// Socket that receives the terminal's master, if no console socket was named.
    pub(super) terminal: Option<OwnedFd>,
    /// What of the configuration was ignored or cannot be granted.
    pub(super) warnings: Vec<String>,
}

/// Creates a container; [`close_descriptors`] comes before. Without `wait_for_start`, its program has been executed when this returns.
pub(super) fn create_container(
    store: &Store,
    wanted: &Create,
    wait_for_start: bool,
) -> Result<Created, Error> {
    // Comes first: this may re-execute the program.
    let program = ReadOnlyProgram::for_children().step("program")?;
    rustix::process::umask(0o022.into());
    let mut bundle = Bundle::load(&wanted.bundle)?;
    if !wait_for_start && bundle.spec.process().is_none() {
        return Err(Error::NoProcess(wanted.id.clone()));
    }
    let mut notes = std::mem::take(&mut bundle.warnings);
    let (stdio, terminal) = stdio(&bundle.spec, wanted)?;
    if let (Some(_), Some(process)) = (&terminal, bundle.spec.process_mut()) {
        size_like_own(process);
    }
    let (path, scope) = cgroup_path(&bundle.spec, wanted)?;
    let linux = bundle.spec.linux().as_ref();
    let cgroup = Cgroup::specified(&path, linux.and_then(|linux| linux.resources().as_ref()))?;
    let record = record(wanted, bundle, cgroup, scope)?;
    let directory = store.reserve(&wanted.id)?;
    let mut container = Container { directory, record };
    match bring_up(
        &mut container,
        wanted,
        &path,
        stdio,
        wait_for_start,
        program,
    ) {
        Ok(process) => Ok(Created {
            warnings: {
                notes.extend(warnings(&container));
                notes
            },
            container,
            process,
            terminal,
        }),
        Err(error) => {
            // Report the original failure, not one of the clean-up.
            drop(container.remove());
            if matches!(&error, Error::Step { step, .. } if hooks::is_hook_step(step)) {
                end::run_poststop(&container);
            }
            Err(error)
        }
    }
}

fn bring_up(
    container: &mut Container,
    wanted: &Create,
    path: &str,
    stdio: Stdio,
    wait_for_start: bool,
    program: Option<ReadOnlyProgram>,
) -> Result<OwnedFd, Error> {
    let time = CgroupTiming::of(&container.record.cgroup, container.record.scope.is_some());
    let is_early = time == CgroupTiming::Before;
    if is_early {
        create_cgroup(container, path)?;
    }
    let spawned =
        spawn(container, wanted, stdio, wait_for_start, time, program).and_then(|start| {
            if !is_early {
                create_late_cgroup(container, path, start.pid).inspect_err(|_| start.abort())?;
            }
            Ok(start)
        });
    let start = spawned.inspect_err(|_| {
        if is_early {
            drop(container.destroy_cgroup());
        }
    })?;
    drive(&start, container, wanted).inspect_err(|_| {
        start.abort();
        drop(container.destroy_cgroup());
    })?;
    Ok(start.process)
}

/// Records the container and creates its cgroup. On failure nothing remains; a cgroup in use belongs to somebody else.
fn create_cgroup(container: &Container, path: &str) -> Result<(), Error> {
    // Recorded first, so that `delete` can clean up after a crash.
    container.write()?;
    let linux = container.record.spec.linux().as_ref();
    let limits = linux.and_then(|linux| linux.resources().as_ref());
    Ok(container.record.cgroup.create(path, limits)?)
}

/// Creates the cgroup once there is a process.
fn create_late_cgroup(container: &Container, path: &str, pid: i32) -> Result<(), Error> {
    match &container.record.scope {
        None => create_cgroup(container, path),
        Some(scope) => create_scope(container, scope, pid),
    }
}

fn spawn(
    container: &Container,
    wanted: &Create,
    stdio: Stdio,
    wait_for_start: bool,
    time: CgroupTiming,
    program: Option<ReadOnlyProgram>,
) -> Result<ContainerStart, Error> {
    let spec = with_process(&container.record.spec);
    let launch = Parts {
        spec: &spec,
        state_dir: &container.directory,
        rootfs: &Rootfs::Bundle,
        user: None,
    };
    let namespace = UserNamespace::prepare(&spec)?;
    let options = options(container, wanted, stdio, wait_for_start)?;
    let (cgroup, namespace) = (&container.record.cgroup, namespace.as_ref());
    let timeout = START_TIMEOUT;
    Ok(ContainerStart::spawn(
        launch, cgroup, namespace, options, timeout, time, program,
    )?)
}

fn drive(start: &ContainerStart, container: &mut Container, wanted: &Create) -> Result<(), Error> {
    start.signal_cgroup_ready();
    container.record.container = Some(ProcessId::of(start.pid).step("container")?);
    // Prepare the record while the container sets itself up.
    let prepared = container.prepare_process()?;
    let (cgroup, spec) = (&container.record.cgroup, &container.record.spec);
    start.wait_for_devices(cgroup, spec, true, &|_| run_hooks(container))?;
    prepared.commit()?;
    if let Some(path) = &wanted.pidfd_socket {
        send_pidfd(path, "standard", &start.process)?;
    }
    if let Some(path) = &wanted.pid_file {
        write_pid(path, start.pid)
            .map_err(|error| format!("{}: {error}", path.display()))
            .step("pid file")?;
    }
    // Only privileges are left to drop: the container need not wait for this process once it is ready.
    start.proceed();
    start.wait_until_ready()?;
    let state = container.state(ContainerState::Creating);
    Ok(start.wait_until_executed(&|number| {
        notification::send_listener(&container.record.spec, &state, &start.process, number)
    })?)
}

/// Lets systemd create the scope that the specification names, and creates the container's own cgroup below it.
fn create_scope(container: &Container, scope: &Scope, pid: i32) -> Result<(), Error> {
    container.write()?;
    let record = &container.record;
    let linux = record.spec.linux().as_ref();
    let limits = linux.and_then(|linux| linux.resources().as_ref());
    // An existing unit of that name belongs to somebody else.
    scope.start(&record.id, pid, limits, record.cgroup.is_unified())?;
    let made = record.cgroup.create_below_scope(pid, limits);
    made.inspect_err(|_| drop(scope.stop()))?;
    Ok(())
}

#[allow(deprecated, reason = "specifications still have prestart hooks")]
fn run_hooks(container: &Container) -> Result<(), Failure> {
    let Some(all) = container.record.spec.hooks() else {
        return Ok(());
    };
    // `prestart` hooks were specified to run after creation and still see that status.
    let state = container.state(ContainerState::Created);
    hooks::run("prestart", all.prestart().as_ref(), &state)?;
    let state = container.state(ContainerState::Creating);
    hooks::run("createRuntime", all.create_runtime().as_ref(), &state)
}

/// The specification with a process, which the container needs even if it can never be started.
fn with_process(spec: &Spec) -> Cow<'_, Spec> {
    if spec.process().is_some() {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    spec.set_process(Some(placeholder_process()));
    Cow::Owned(spec)
}

/// Placeholder process of a container without `process`: no privileges, no program. [`super::start`] refuses it.
fn placeholder_process() -> Process {
    let mut process = Process::default();
    process
        .set_args(Some(vec!["/".to_owned()]))
        .set_env(None)
        .set_cwd("/".into())
        .set_rlimits(None)
        .set_capabilities(None)
        .set_no_new_privileges(Some(true));
    process
}

fn options(
    container: &Container,
    wanted: &Create,
    stdio: Stdio,
    wait_for_start: bool,
) -> Result<StartOptions, Failure> {
    let start_socket = wait_for_start
        .then(|| Listener::bind(&container.directory))
        .transpose()
        .step("start socket")?;
    Ok(StartOptions {
        stdio,
        dies_with_parent: false,
        landlock: false,
        preserve_fds: wanted.preserve_fds,
        reset_affinity: true,
        own_keyring: !wanted.keep_keyring,
        pivot_root: !wanted.no_pivot,
        start_socket,
        init: None,
        hooks: container.record.spec.hooks().clone().unwrap_or_default(),
        state: container.state(ContainerState::Created),
    })
}

/// Closes descriptors beyond the preserved ones, which the caller did not mean to pass on: a container that waits for its
/// start would hold them. Called before this program opens any.
pub(super) fn close_descriptors(preserve_fds: u32) -> Result<(), Failure> {
    const STEP: &str = "--preserve-fds";
    for number in 3..preserve_fds.saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let message = format!("the descriptor {number} is not open");
            return Err(Failure::new(STEP, &message));
        }
    }
    sys::close_from(preserve_fds.saturating_add(3)).step(STEP)
}

fn stdio(spec: &Spec, wanted: &Create) -> Result<(Stdio, Option<OwnedFd>), Error> {
    let process = spec.process().as_ref();
    let terminal = process.and_then(Process::terminal) == Some(true);
    terminal_or_streams(terminal, wanted.console_socket.as_deref(), wanted.detach)
}

const NO_SOCKET: &str =
    "process.terminal (or --tty) needs a --console-socket to send the terminal to";

/// The terminal's master is sent to the console socket, or to this process over the returned socket if it stays.
pub(super) fn terminal_or_streams(
    terminal: bool,
    socket: Option<&Path>,
    detach: bool,
) -> Result<(Stdio, Option<OwnedFd>), Error> {
    match (terminal, socket) {
        (false, None) => Ok((Stdio::Streams(duplicate_stdio().step("stdio")?), None)),
        (false, Some(_)) => Err(Error::Terminal(
            "--console-socket is given, but config.json has no process.terminal",
        )),
        (true, None) if detach => Err(Error::Terminal(NO_SOCKET)),
        (true, None) => {
            let (here, there) = UnixStream::pair().step("terminal")?;
            let console = there.into();
            let relayed = true;
            Ok((Stdio::Terminal { console, relayed }, Some(here.into())))
        }
        (true, Some(path)) => {
            let console = UnixStream::connect(path)
                .map_err(|error| format!("{}: {error}", path.display()))
                .step("console socket")?
                .into();
            let relayed = false;
            Ok((Stdio::Terminal { console, relayed }, None))
        }
    }
}

/// The cgroup path of the specification, or the container's id below the own cgroup; and the scope above it, if
/// systemd creates one.
fn cgroup_path(spec: &Spec, wanted: &Create) -> Result<(String, Option<Scope>), Error> {
    let linux = spec.linux().as_ref();
    let path = linux
        .and_then(|linux| linux.cgroups_path().as_ref())
        .filter(|path| !path.as_os_str().is_empty());
    let path = path
        .map(|path| path.to_str().ok_or("linux.cgroupsPath is not UTF-8"))
        .transpose()
        .step("cgroup")?;
    if wanted.systemd_cgroup {
        systemd::check()?;
        let scope = Scope::specified(path, &wanted.id)?;
        return Ok((scope.cgroup_path()?, Some(scope)));
    }
    Ok((path.unwrap_or(&wanted.id).to_owned(), None))
}

fn record(
    wanted: &Create,
    bundle: Bundle,
    cgroup: Cgroup,
    scope: Option<Scope>,
) -> Result<Record, Failure> {
    Ok(Record {
        id: wanted.id.clone(),
        bundle: bundle.directory,
        spec: bundle.spec,
        created: jiff::Timestamp::now().to_string(),
        boot_id: state_dir::boot_id().step("boot id")?,
        container: None,
        cgroup,
        scope,
    })
}

/// Sends a pidfd over a socket, with a word for what it is, as runc does.
pub(super) fn send_pidfd(path: &Path, kind: &str, process: &OwnedFd) -> Result<(), Failure> {
    UnixStream::connect(path)
        .and_then(|socket| send_descriptors(&socket, kind.as_bytes(), &[process.as_fd()]))
        .map(drop)
        .map_err(|error| format!("{}: {error}", path.display()))
        .step("pidfd socket")
}

/// Writes a pid file atomically.
pub(super) fn write_pid(path: &Path, pid: i32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    fs::write(&temporary, pid.to_string())?;
    fs::rename(&temporary, path)
}
