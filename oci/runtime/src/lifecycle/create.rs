//! `create`: all of a container but its program's first instruction.

use std::{
    borrow::Cow,
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime::{ContainerState, Process, Spec};

use super::{
    Error,
    relay::size_like_own,
    store::{Container, Record, Store},
};
use crate::{
    birth::{Birth, CgroupTime},
    bundle::Bundle,
    cgroup::Cgroup,
    channel::{Failure, Step},
    container::{
        manner::{Manner, Stdio, own_streams},
        process::missing_capabilities,
        userns::UserNamespace,
    },
    exe::Shield,
    home::{self, ProcessId},
    hooks,
    launch::{Parts, Rootfs},
    listener::Listener,
    notification, sys,
    systemd::{self, Scope},
};

/// How long one step of coming up may take; hooks have time-outs of their own.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What to create.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Where the number of its first process is written.
    pub pid_file: Option<PathBuf>,
    /// A listening socket that its terminal is sent to.
    pub console_socket: Option<PathBuf>,
    /// How many of the caller's descriptors, from 3 on, it has too.
    pub preserve_fds: u32,
    /// Leaves it in the caller's session keyring.
    pub keep_keyring: bool,
    /// Enters its root without `pivot_root`, which does not work where the host's root is a ramdisk.
    pub no_pivot: bool,
    /// Has systemd make its cgroup.
    pub systemd_cgroup: bool,
    /// This process does not stay with it, so that it cannot have this process's terminal.
    pub detach: bool,
}

/// Creates a container, which then waits for [`super::start`]. Its standard streams are the caller's, or a terminal. Gives
/// warnings.
pub fn create(store: &Store, wanted: &Create) -> Result<Vec<String>, Error> {
    Ok(warnings(&begin(store, wanted, true)?.container))
}

/// What was asked for and could not be granted.
pub(super) fn warnings(container: &Container) -> Vec<String> {
    let process = container.record.spec.process().as_ref();
    let missing = process.map(missing_capabilities).unwrap_or_default();
    let warning = |names: &[String]| format!("this host cannot grant {}", names.join(", "));
    (!missing.is_empty())
        .then(|| warning(&missing))
        .into_iter()
        .collect()
}

/// A container that came up.
pub(super) struct Begun {
    pub(super) container: Container,
    pub(super) process: OwnedFd,
    /// Where the outer end of its terminal waits, if nobody else gets it.
    pub(super) terminal: Option<OwnedFd>,
}

/// Creates a container; if it shall not wait, its program has been executed when this returns.
pub(super) fn begin(store: &Store, wanted: &Create, waits: bool) -> Result<Begun, Error> {
    keep_descriptors(wanted.preserve_fds)?;
    // Before what would have to be done again if this program has to be executed again.
    let shield = Shield::for_children().step("program")?;
    rustix::process::umask(0o022.into());
    let mut bundle = Bundle::load(&wanted.bundle)?;
    if !waits && bundle.spec.process().is_none() {
        return Err(Error::NoProcess(wanted.id.clone()));
    }
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
    match bring_up(&mut container, wanted, &path, stdio, waits, shield) {
        Ok(process) => Ok(Begun {
            container,
            process,
            terminal,
        }),
        Err(error) => {
            // Why it failed says more than why that could not be undone.
            drop(container.remove());
            Err(error)
        }
    }
}

fn bring_up(
    container: &mut Container,
    wanted: &Create,
    path: &str,
    stdio: Stdio,
    waits: bool,
    shield: Option<Shield>,
) -> Result<OwnedFd, Error> {
    let time = CgroupTime::of(&container.record.cgroup, container.record.scope.is_some());
    let is_early = time == CgroupTime::Before;
    if is_early {
        make_cgroup(container, path)?;
    }
    let born = bear(container, wanted, stdio, waits, time, shield).and_then(|birth| {
        if !is_early {
            make_late(container, path, birth.pid).inspect_err(|_| birth.abort())?;
        }
        Ok(birth)
    });
    let birth = born.inspect_err(|_| {
        if is_early {
            drop(container.destroy_cgroup());
        }
    })?;
    come_up(&birth, container, wanted).inspect_err(|_| {
        birth.abort();
        drop(container.destroy_cgroup());
    })?;
    Ok(birth.process)
}

/// A failure to make it leaves nothing. One that is in use is somebody else's.
fn make_cgroup(container: &Container, path: &str) -> Result<(), Error> {
    // Known before it exists: after a crash, `delete` can clean up.
    container.write()?;
    let linux = container.record.spec.linux().as_ref();
    let limits = linux.and_then(|linux| linux.resources().as_ref());
    Ok(container.record.cgroup.create(path, limits)?)
}

/// The same when there is a process.
fn make_late(container: &Container, path: &str, pid: i32) -> Result<(), Error> {
    match &container.record.scope {
        None => make_cgroup(container, path),
        Some(scope) => make_scope(container, scope, pid),
    }
}

fn bear(
    container: &Container,
    wanted: &Create,
    stdio: Stdio,
    waits: bool,
    time: CgroupTime,
    shield: Option<Shield>,
) -> Result<Birth, Error> {
    let spec = with_process(&container.record.spec);
    let launch = Parts {
        spec: &spec,
        home: &container.directory,
        rootfs: &Rootfs::Bundle,
        user: None,
    };
    let namespace = UserNamespace::prepare(&spec)?;
    let manner = manner(container, wanted, stdio, waits)?;
    let (cgroup, namespace) = (&container.record.cgroup, namespace.as_ref());
    let patience = START_PATIENCE;
    Ok(Birth::give(
        launch, cgroup, namespace, manner, patience, time, shield,
    )?)
}

fn come_up(birth: &Birth, container: &mut Container, wanted: &Create) -> Result<(), Error> {
    birth.tell_of_cgroup();
    container.record.container = Some(ProcessId::of(birth.pid).step("container")?);
    // While it sets itself up there is time for what has to be there as soon as it has.
    let prepared = container.prepare_process()?;
    let (cgroup, spec) = (&container.record.cgroup, &container.record.spec);
    birth.wait_until_equipped(cgroup, spec, &|_| run_hooks(container))?;
    prepared.put()?;
    if let Some(path) = &wanted.pid_file {
        write_pid(path, birth.pid)
            .map_err(|error| format!("{}: {error}", path.display()))
            .step("pid file")?;
    }
    // Nothing is left to do for it: it need not wait for this process when it is ready.
    birth.go_on();
    birth.wait_until_ready()?;
    let state = container.state(ContainerState::Created);
    Ok(birth.wait_until_executed(&|number| {
        notification::hand_over(&container.record.spec, &state, &birth.process, number)
    })?)
}

/// Has systemd make the cgroup that the specification names, and makes the container's own below it.
fn make_scope(container: &Container, scope: &Scope, pid: i32) -> Result<(), Error> {
    container.write()?;
    let record = &container.record;
    let linux = record.spec.linux().as_ref();
    let limits = linux.and_then(|linux| linux.resources().as_ref());
    // A unit of that name that is there already is somebody else's.
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
    // Those of the older kind were run between creation and start, and are told so still.
    let state = container.state(ContainerState::Created);
    hooks::run("prestart", all.prestart().as_ref(), &state)?;
    let state = container.state(ContainerState::Creating);
    hooks::run("createRuntime", all.create_runtime().as_ref(), &state)
}

/// The specification of what is made: it always has a process.
fn with_process(spec: &Spec) -> Cow<'_, Spec> {
    if spec.process().is_some() {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    spec.set_process(Some(nobody()));
    Cow::Owned(spec)
}

/// What waits in a container without `process`, which [`super::start`] refuses: it may nothing, and is no program.
fn nobody() -> Process {
    let mut nobody = Process::default();
    nobody
        .set_args(Some(vec!["/".to_owned()]))
        .set_env(None)
        .set_cwd("/".into())
        .set_rlimits(None)
        .set_capabilities(None)
        .set_no_new_privileges(Some(true));
    nobody
}

fn manner(
    container: &Container,
    wanted: &Create,
    stdio: Stdio,
    waits: bool,
) -> Result<Manner, Failure> {
    let start = waits
        .then(|| Listener::bind(&container.directory))
        .transpose()
        .step("start socket")?;
    Ok(Manner {
        stdio,
        dies_with_starter: false,
        landlock: false,
        preserved: wanted.preserve_fds,
        own_keyring: !wanted.keep_keyring,
        pivots: !wanted.no_pivot,
        start,
        hooks: container.record.spec.hooks().clone().unwrap_or_default(),
        state: container.state(ContainerState::Created),
    })
}

/// Descriptors that were not meant for it, the caller forgot to close.
pub(super) fn keep_descriptors(preserved: u32) -> Result<(), Failure> {
    const STEP: &str = "--preserve-fds";
    for number in 3..preserved.saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let message = format!("the descriptor {number} is not open");
            return Err(Failure::new(STEP, &message));
        }
    }
    sys::close_on_exec_from(preserved.saturating_add(3)).step(STEP)
}

fn stdio(spec: &Spec, wanted: &Create) -> Result<(Stdio, Option<OwnedFd>), Error> {
    let process = spec.process().as_ref();
    let terminal = process.and_then(Process::terminal) == Some(true);
    terminal_or_streams(terminal, wanted.console_socket.as_deref(), wanted.detach)
}

const NO_SOCKET: &str = "a terminal is asked for (process.terminal or --tty): give a --console-socket that it can be sent to";

/// A terminal needs someone who takes its outer end: this process does, where it stays; it comes over the socket that is given
/// back.
pub(super) fn terminal_or_streams(
    terminal: bool,
    socket: Option<&Path>,
    detach: bool,
) -> Result<(Stdio, Option<OwnedFd>), Error> {
    match (terminal, socket) {
        (false, None) => Ok((Stdio::Given(own_streams().step("stdio")?), None)),
        (false, Some(_)) => Err(Error::Terminal(
            "--console-socket is given, but config.json has no process.terminal",
        )),
        (true, None) if detach => Err(Error::Terminal(NO_SOCKET)),
        (true, None) => {
            let (here, there) = UnixStream::pair().step("terminal")?;
            let console = there.into();
            Ok((Stdio::Terminal { console }, Some(here.into())))
        }
        (true, Some(path)) => {
            let console = UnixStream::connect(path)
                .map_err(|error| format!("{}: {error}", path.display()))
                .step("console socket")?
                .into();
            Ok((Stdio::Terminal { console }, None))
        }
    }
}

/// The specification's, or one of the container's own below ours; and the unit above it, where systemd makes that.
fn cgroup_path(spec: &Spec, wanted: &Create) -> Result<(String, Option<Scope>), Error> {
    let linux = spec.linux().as_ref();
    let path = linux
        .and_then(|linux| linux.cgroups_path().as_ref())
        .filter(|path| !path.as_os_str().is_empty());
    let path = path
        .map(|path| path.to_str().ok_or("linux.cgroupsPath is no text"))
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
        boot_id: home::boot_id().step("boot id")?,
        container: None,
        cgroup,
        scope,
    })
}

/// Whoever waits for the file sees all of it.
pub(super) fn write_pid(path: &Path, pid: i32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    fs::write(&temporary, pid.to_string())?;
    fs::rename(&temporary, path)
}
