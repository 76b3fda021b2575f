//! The container's side of a start: a process in new namespaces sets them up from the inside and becomes the program.

pub(crate) mod devices;
pub(crate) mod inside;
pub(crate) mod kernel;
pub(crate) mod manner;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod rootfs;
pub(crate) mod seccomp;
pub(crate) mod terminal;
pub(crate) mod user;
pub(crate) mod userns;

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Process, Spec};
use rustix::{fs::OFlags, thread::ThreadNameSpaceType};

use self::{
    inside::{Links, Root},
    manner::{Manner, Stdio},
    mounts::{Covers, Mounter},
    user::User,
    userns::{Ids, UserNamespace},
};
use crate::{
    cgroup::Cgroup,
    channel::{Channel, Failure, FromContainer, Step},
    hooks::{self, Hooks},
    launch::Launch,
};

/// What the supervisor prepared for the new process.
pub(crate) struct Prepared<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) cgroup: &'a Cgroup,
    /// Opened namespaces to join, by `setns(2)`.
    pub(crate) joined: Vec<OwnedFd>,
    pub(crate) namespace: Option<&'a UserNamespace>,
    pub(crate) manner: Manner,
    pub(crate) channel: &'a Channel,
    /// Inode of the supervisor's own network namespace.
    pub(crate) host_network: u64,
}

impl Prepared<'_> {
    /// Becomes the container's program: returns only a failure.
    pub(crate) fn run(self) -> Failure {
        match self.set_up() {
            Ok((user, stdio)) => self.plan(user, stdio),
            Err(failure) => failure,
        }
    }

    fn plan(&self, user: User, stdio: [OwnedFd; 3]) -> Failure {
        let spec = &self.launch.spec;
        let process = match process_of(spec) {
            Ok(process) => process,
            Err(failure) => return failure,
        };
        process::Plan {
            spec,
            process,
            arguments: process.args().as_deref().unwrap_or_default(),
            user,
            namespace: self.namespace,
            stdio,
            channel: self.channel,
            manner: &self.manner,
        }
        .run()
    }

    fn set_up(&self) -> Result<(User, [OwnedFd; 3]), Failure> {
        // By then this process is in its cgroup, and all that it uses counts there.
        self.channel.wait_to_go().step("supervisor")?;
        isolate()?;
        self.enter_namespaces()?;
        let spec = &self.launch.spec;
        let process = process_of(spec)?;
        kernel::set_names(spec)?;
        kernel::set_oom_score(process)?;
        kernel::set_sysctls(spec, self.host_network)?;
        let ids = self
            .namespace
            .map(|space| space.ids.clone())
            .unwrap_or_default();
        let root = rootfs::mount_root(self.launch, self.namespace)?;
        self.furnish(&root, &ids)?;
        let stdio = self.stdio(&root, &ids)?;
        self.run_hooks()?;
        if is_read_only(spec) {
            rootfs::make_read_only(&root)?;
        }
        rootfs::enter(&root)?;
        let user = User::find(&root, self.launch.user.as_deref(), process).step("user")?;
        Ok((user, stdio))
    }

    /// Those of the starter's namespaces, by the starter, and then the container's. While they run, the container can be
    /// seen in its state before `pivot_root`.
    fn run_hooks(&self) -> Result<(), Failure> {
        let hooks = &self.manner.hooks;
        if !wants_furnished(hooks) {
            return Ok(());
        }
        self.channel
            .send(&FromContainer::Furnished)
            .step("supervisor")?;
        self.channel.wait_to_go().step("supervisor")?;
        let own = hooks.create_container().as_ref();
        hooks::run("createContainer", own, &self.manner.seen_inside())
    }

    fn enter_namespaces(&self) -> Result<(), Failure> {
        for namespace in &self.joined {
            let any = ThreadNameSpaceType::empty();
            rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), any)
                .step("joining a namespace")?;
        }
        // Only now, in its cgroup, which becomes the root of what it sees.
        if creates(&self.launch.spec, LinuxNamespaceType::Cgroup) {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step("cgroup namespace")?;
        }
        Ok(())
    }

    /// Everything in the root file system that the specification asks for.
    fn furnish(&self, root: &Root, ids: &Ids) -> Result<(), Failure> {
        let spec = &self.launch.spec;
        let cgroup = self.cgroup;
        let mounter = Mounter { root, ids, cgroup };
        for mount in spec.mounts().iter().flatten() {
            mounter.mount(mount)?;
        }
        let linux = spec.linux().as_ref();
        let own = linux.and_then(|linux| linux.devices().as_deref());
        devices::make(root, ids, own.unwrap_or_default())?;
        let covers = Covers { root };
        let masked = linux.and_then(|linux| linux.masked_paths().as_deref());
        covers.mask(masked.unwrap_or_default())?;
        let read_only = linux.and_then(|linux| linux.readonly_paths().as_deref());
        covers.make_read_only(read_only.unwrap_or_default())?;
        let cwd = process_of(spec)?.cwd();
        ids.as_root(|| {
            root.directory(cwd, Links::StayInside)
                .step("working directory")
        })?;
        Ok(())
    }

    fn stdio(&self, root: &Root, ids: &Ids) -> Result<[OwnedFd; 3], Failure> {
        match &self.manner.stdio {
            Stdio::Outputs { stdout, stderr } => Ok([
                null(root)?,
                stdout.try_clone().step("stdout")?,
                stderr.try_clone().step("stderr")?,
            ]),
            Stdio::Given(streams) => manner::copies(streams).step("stdio"),
            Stdio::Terminal { console } => {
                let size = process_of(&self.launch.spec)?.console_size();
                terminal::open(root, ids, size)?.hand_over(console)
            }
        }
    }
}

fn null(root: &Root) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    root.open(Path::new("/dev/null"), flags, Links::Refused)
        .step("stdin")
}

fn is_read_only(spec: &Spec) -> bool {
    let root = spec.root().as_ref();
    root.and_then(oci_spec::runtime::Root::readonly) == Some(true)
}

#[allow(deprecated, reason = "specifications still have them")]
fn wants_furnished(hooks: &Hooks) -> bool {
    [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
    ]
    .into_iter()
    .any(|list| list.iter().flatten().next().is_some())
}

/// Keeps the processes of the container (an `exec`'s neighbours) from looking into this one before it is one of them, and
/// gives it a session without terminal.
pub(crate) fn isolate() -> Result<(), Failure> {
    use rustix::process::DumpableBehavior;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("dumpable")?;
    rustix::process::setsid().step("session")?;
    // What is made in the root file system gets the mode that it is made with; the program's is set before it is executed.
    rustix::process::umask(0.into());
    Ok(())
}

/// The specification's namespaces.
pub(crate) fn namespaces(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default()
}

/// The specification's process.
pub(crate) fn process_of(spec: &Spec) -> Result<&Process, Failure> {
    spec.process()
        .as_ref()
        .ok_or("the specification has no process")
        .step("specification")
}

/// Those that are made by `clone3`. The user namespace is entered last, the cgroup namespace once in the cgroup.
pub(crate) fn clone_flags(spec: &Spec) -> Result<CloneFlags, Failure> {
    let kinds = [
        (LinuxNamespaceType::Pid, CloneFlags::CLONE_NEWPID),
        (LinuxNamespaceType::Mount, CloneFlags::CLONE_NEWNS),
        (LinuxNamespaceType::Uts, CloneFlags::CLONE_NEWUTS),
        (LinuxNamespaceType::Ipc, CloneFlags::CLONE_NEWIPC),
        (LinuxNamespaceType::Network, CloneFlags::CLONE_NEWNET),
    ];
    let flags = kinds
        .into_iter()
        .filter(|(kind, _)| creates(spec, *kind))
        .fold(CloneFlags::empty(), |all, (_, flag)| all | flag);
    // Without them, there is no container: its mounts would be the host's, its processes out of reach.
    if flags.contains(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID) {
        return Ok(flags);
    }
    let message = "a new mount and a new pid namespace are required";
    Err(Failure::new("specification", message))
}

/// Opens the namespaces that are joined by path.
pub(crate) fn open_joined(spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
    namespaces(spec)
        .iter()
        .filter_map(|namespace| Some((namespace.typ(), namespace.path().as_deref()?)))
        .map(|(kind, path)| {
            let step = format!("the {kind:?} namespace {}", path.display());
            if !matches!(
                kind,
                LinuxNamespaceType::Network | LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts
            ) {
                return Err(Failure::new(&step, "only net, ipc and uts can be joined"));
            }
            File::open(path).map(OwnedFd::from).step(&step)
        })
        .collect()
}

fn creates(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    namespaces(spec)
        .iter()
        .any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        let text = format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_container_without_mounts_or_pids_of_its_own_is_refused() {
        assert!(clone_flags(&spec(r#"[{"type":"pid"}]"#)).is_err());
        assert!(clone_flags(&spec("[]")).is_err());
        let joined = r#"[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/x"}]"#;
        let flags = clone_flags(&spec(joined)).unwrap();
        assert!(!flags.contains(CloneFlags::CLONE_NEWNET));
    }

    #[test]
    fn only_some_namespaces_can_be_joined() {
        let own = r#"[{"type":"network","path":"/proc/self/ns/net"}]"#;
        assert_eq!(open_joined(&spec(own)).unwrap().len(), 1);
        let mount = r#"[{"type":"mount","path":"/proc/self/ns/mnt"}]"#;
        assert!(open_joined(&spec(mount)).is_err());
        let missing = r#"[{"type":"network","path":"/nowhere"}]"#;
        assert!(
            open_joined(&spec(missing))
                .unwrap_err()
                .step
                .contains("/nowhere")
        );
    }
}
