//! The container's side of a start: a process in new namespaces sets them up from the inside and becomes the program.

pub(crate) mod devices;
pub(crate) mod inside;
pub(crate) mod kernel;
pub(crate) mod labels;
pub(crate) mod landlock;
pub(crate) mod manner;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod terminal;
pub(crate) mod user;
pub(crate) mod userns;

use std::{os::fd::OwnedFd, path::Path};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rustix::fs::OFlags;

use self::{
    inside::{Links, Root},
    labels::Labels,
    manner::{Manner, Stdio},
    mounts::{Covers, Made, Mounter, Sources},
    namespaces::{Joined, joined_path},
    user::User,
    userns::{Ids, UserNamespace},
};
use crate::{
    birth::CgroupTime,
    cgroup::Cgroup,
    channel::{Channel, Failure, FromContainer, Step},
    hooks::{self, Hooks},
    launch::Parts,
};

/// What the supervisor prepared for the new process.
pub(crate) struct Prepared<'a> {
    pub(crate) launch: Parts<'a>,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) cgroup_time: CgroupTime,
    /// Whether it was made there.
    pub(crate) is_in_cgroup: bool,
    /// Namespaces to join.
    pub(crate) joined: Joined,
    /// User namespaces of mounts that have mappings of their own.
    pub(crate) id_maps: Sources,
    pub(crate) namespace: Option<&'a UserNamespace>,
    pub(crate) manner: Manner,
    pub(crate) channel: &'a Channel,
    /// Inode of the supervisor's own network namespace.
    pub(crate) host_network: u64,
}

impl Prepared<'_> {
    /// Becomes the container's program: returns only a failure.
    pub(crate) fn run(self) -> Failure {
        match self.plan() {
            Ok(plan) => plan.run(),
            Err(failure) => failure,
        }
    }

    fn plan(&self) -> Result<process::Plan<'_>, Failure> {
        let spec = self.launch.spec;
        // First, for that is when its cgroup is being made.
        let filters = process::filters(spec)?;
        let process = process_of(spec)?;
        let labels = Labels::open(process, spec, self.manner.own_keyring)?;
        let (user, stdio) = self.set_up()?;
        Ok(process::Plan {
            spec,
            process,
            arguments: process.args().as_deref().unwrap_or_default(),
            user,
            namespace: self.namespace,
            filters,
            labels,
            stdio,
            channel: self.channel,
            manner: &self.manner,
        })
    }

    fn set_up(&self) -> Result<(User, [OwnedFd; 3]), Failure> {
        let spec = self.launch.spec;
        if !self.joins_late() {
            self.join_cgroup()?;
        }
        isolate()?;
        self.joined.enter()?;
        namespaces::enter_time(spec)?;
        let process = process_of(spec)?;
        kernel::set_names(spec)?;
        kernel::set_oom_score(process)?;
        kernel::set_sysctls(spec, self.host_network)?;
        self.joined.enter_mounts()?;
        let ids = self
            .namespace
            .map(|space| space.ids.clone())
            .unwrap_or_default();
        let taken = mounts::take_shared(spec)?;
        let root = rootfs::mount_root(self.launch, self.namespace)?;
        self.furnish(&root, &ids, taken)?;
        let stdio = self.stdio(&root, &ids)?;
        self.run_hooks()?;
        self.channel
            .send(&FromContainer::Equipped)
            .step("supervisor")?;
        if is_read_only(spec) {
            rootfs::make_read_only(&root)?;
        }
        if self.manner.pivots {
            rootfs::enter(&root)?;
        } else {
            rootfs::enter_without_pivot(&root, self.launch.home)?;
        }
        rootfs::set_propagation(spec)?;
        let user = User::find(&root, self.launch.user, process).step("user")?;
        Ok((user, stdio))
    }

    /// Whether it can set itself up while its cgroup is made. Another mount namespace may not show where that is.
    fn joins_late(&self) -> bool {
        let joins_mounts = joined_path(self.launch.spec, LinuxNamespaceType::Mount).is_some();
        self.cgroup_time == CgroupTime::Meanwhile && !joins_mounts
    }

    /// What it uses from here on counts there.
    fn join_cgroup(&self) -> Result<(), Failure> {
        if self.cgroup_time != CgroupTime::Before {
            self.channel.wait_to_go().step("supervisor")?;
        }
        if !self.is_in_cgroup {
            self.cgroup.enter().step("cgroup")?;
        }
        self.joined.enter_cgroup(self.launch.spec)
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

    /// Everything in the root file system that the specification asks for.
    fn furnish(&self, root: &Root, ids: &Ids, taken: Sources) -> Result<(), Failure> {
        let spec = self.launch.spec;
        let mut mounter = Mounter {
            root,
            ids,
            cgroup: self.cgroup,
            namespace: self.namespace,
            id_maps: &self.id_maps,
            label: labels::of_mounts(spec),
            taken,
            made: Made::new(),
        };
        let mut is_outside = self.joins_late();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            if is_outside && mounts::needs_cgroup(mount) {
                self.join_cgroup()?;
                is_outside = false;
            }
            mounter.mount(index, mount)?;
        }
        if is_outside {
            self.join_cgroup()?;
        }
        let linux = spec.linux().as_ref();
        let own = linux.and_then(|linux| linux.devices().as_deref());
        devices::make(root, ids, own.unwrap_or_default())?;
        let made = &mounter.made;
        let label = mounter.label;
        let covers = Covers { root, made, label };
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
                let size = process_of(self.launch.spec)?.console_size();
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

/// The specification's process.
pub(crate) fn process_of(spec: &Spec) -> Result<&Process, Failure> {
    spec.process()
        .as_ref()
        .ok_or("the specification has no process")
        .step("specification")
}
