//! The container's side of a start: a process in new namespaces sets itself up and becomes the program.

pub(crate) mod devices;
pub(crate) mod init;
pub(crate) mod kernel;
pub(crate) mod labels;
pub(crate) mod landlock;
pub(crate) mod message;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod net_devices;
mod netlink;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod resolve;
pub(crate) mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod start_options;
pub(crate) mod terminal;
pub(crate) mod user;
pub(crate) mod userns;

use std::{os::fd::OwnedFd, path::Path};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rustix::fs::OFlags;

use self::{
    labels::Labels,
    message::FromContainer,
    mounts::{Masks, MountedFileSystems, Mounter, Sources},
    namespaces::{Joined, joined_path},
    net_devices::NetDevices,
    resolve::{Root, Symlinks},
    start_options::{StartOptions, Stdio},
    user::User,
    userns::{IdMappings, UserNamespace},
};
use crate::{
    cgroup::Cgroup,
    cgroup::CgroupTiming,
    channel::{Channel, Failure, Step},
    hooks::{self, Hooks},
    launch::Parts,
};

/// State that the starter prepared for the new process.
pub(crate) struct ContainerSetup<'a> {
    pub(crate) launch: Parts<'a>,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) cgroup_timing: CgroupTiming,
    /// Whether the process was cloned into the cgroup.
    pub(crate) is_in_cgroup: bool,
    /// Namespaces to join.
    pub(crate) joined: Joined,
    /// User namespaces of mounts with mappings of their own.
    pub(crate) id_maps: Sources,
    pub(crate) namespace: Option<&'a UserNamespace>,
    pub(crate) options: StartOptions,
    pub(crate) channel: &'a Channel,
    /// Inode of the starter's network namespace.
    pub(crate) host_network: u64,
    /// Devices to move into the container's.
    pub(crate) net_devices: NetDevices,
}

impl ContainerSetup<'_> {
    /// Becomes the container's program. Returns only on failure.
    pub(crate) fn run(self) -> Failure {
        match self.plan() {
            Ok(plan) => plan.run(),
            Err(failure) => failure,
        }
    }

    fn plan(&self) -> Result<process::ExecPlan<'_>, Failure> {
        let spec = self.launch.spec;
        // Compile the filters first, while the starter creates the cgroup.
        let filters = process::filters(spec)?;
        let process = process_of(spec)?;
        let labels = Labels::open(process, spec, self.options.own_keyring)?;
        let (user, stdio) = self.set_up()?;
        Ok(process::ExecPlan {
            spec,
            process,
            arguments: process.args().as_deref().unwrap_or_default(),
            user,
            namespace: self.namespace,
            filters,
            labels,
            stdio,
            channel: self.channel,
            options: &self.options,
        })
    }

    fn set_up(&self) -> Result<(User, [OwnedFd; 3]), Failure> {
        let spec = self.launch.spec;
        if !self.joins_cgroup_late() {
            self.join_cgroup()?;
        }
        isolate()?;
        self.joined.enter()?;
        namespaces::enter_time(spec)?;
        namespaces::bring_up_loopback(spec)?;
        self.net_devices.take(self.host_network)?;
        let process = process_of(spec)?;
        kernel::set_names(spec)?;
        kernel::set_oom_score(process)?;
        kernel::set_sysctls(spec, self.host_network)?;
        self.joined.enter_mounts()?;
        let ids = self
            .namespace
            .map(|space| space.ids.clone())
            .unwrap_or_default();
        let shared_sources = mounts::clone_shared_sources(spec)?;
        let (root, images) = rootfs::mount_root(self.launch, self.namespace)?;
        rootfs::keep_writable(self.launch, &root)?;
        rootfs::attach_images(&images, &root, &ids)?;
        let read_only = self.populate(&root, &ids, shared_sources)?;
        let stdio = self.stdio(&root, &ids)?;
        self.run_hooks()?;
        self.channel
            .send(&FromContainer::DevicesReady)
            .step("supervisor")?;
        mounts::make_read_only(&read_only)?;
        if rootfs::is_read_only(spec) {
            rootfs::make_read_only(&root)?;
        }
        if self.options.pivot_root {
            rootfs::enter(&root)?;
        } else {
            rootfs::enter_without_pivot(&root, rootfs::mount_point(self.launch))?;
        }
        rootfs::set_propagation(spec)?;
        let user = User::find(&root, self.launch.user, process).step("user")?;
        Ok((user, stdio))
    }

    /// Whether the process sets itself up while its cgroup is created. A joined mount namespace may not show the
    /// cgroup.
    fn joins_cgroup_late(&self) -> bool {
        let joins_mounts = joined_path(self.launch.spec, LinuxNamespaceType::Mount).is_some();
        self.cgroup_timing == CgroupTiming::Meanwhile && !joins_mounts
    }

    /// Joins the cgroup, which accounts for everything from here on.
    fn join_cgroup(&self) -> Result<(), Failure> {
        if self.cgroup_timing != CgroupTiming::Before {
            self.channel.wait_for_proceed().step("supervisor")?;
        }
        if !self.is_in_cgroup {
            self.cgroup.enter().step("cgroup")?;
        }
        if self.options.reset_affinity {
            scheduling::reset_affinity();
        }
        self.joined.enter_cgroup(self.launch.spec)
    }

    /// Runs the hooks of the starter's namespaces (in the starter) and then those of the container's, before
    /// `pivot_root`.
    fn run_hooks(&self) -> Result<(), Failure> {
        let hooks = &self.options.hooks;
        if !has_root_hooks(hooks) {
            return Ok(());
        }
        self.channel
            .send(&FromContainer::RootReady)
            .step("supervisor")?;
        self.channel.wait_for_proceed().step("supervisor")?;
        let own = hooks.create_container().as_ref();
        hooks::run("createContainer", own, &self.options.state_inside())
    }

    /// Makes everything in the root file system that the specification asks for. Returns mounts that are to become
    /// read-only when nothing is made below them any more.
    fn populate(
        &self,
        root: &Root,
        ids: &IdMappings,
        shared_sources: Sources,
    ) -> Result<Vec<OwnedFd>, Failure> {
        let spec = self.launch.spec;
        let mut mounter = Mounter {
            root,
            ids,
            cgroup: self.cgroup,
            namespace: self.namespace,
            id_maps: &self.id_maps,
            label: labels::of_mounts(spec),
            shared_sources,
            mounted: MountedFileSystems::new(),
            read_only: Vec::new(),
        };
        let mut is_outside_cgroup = self.joins_cgroup_late();
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            if is_outside_cgroup && mounts::needs_cgroup(mount) {
                self.join_cgroup()?;
                is_outside_cgroup = false;
            }
            mounter.mount(index, mount)?;
        }
        if is_outside_cgroup {
            self.join_cgroup()?;
        }
        let linux = spec.linux().as_ref();
        let own = linux.and_then(|linux| linux.devices().as_deref());
        devices::make(root, ids, own.unwrap_or_default())?;
        let mounted = &mounter.mounted;
        let label = mounter.label;
        let masks = Masks {
            root,
            mounted,
            label,
        };
        let masked = linux.and_then(|linux| linux.masked_paths().as_deref());
        masks.mask(masked.unwrap_or_default())?;
        let read_only = linux.and_then(|linux| linux.readonly_paths().as_deref());
        masks.make_read_only(read_only.unwrap_or_default())?;
        let cwd = process_of(spec)?.cwd();
        ids.as_root(|| {
            root.directory(cwd, Symlinks::InRoot)
                .step("working directory")
        })?;
        Ok(mounter.read_only)
    }

    fn stdio(&self, root: &Root, ids: &IdMappings) -> Result<[OwnedFd; 3], Failure> {
        match &self.options.stdio {
            Stdio::Outputs { stdout, stderr } => Ok([
                null(root)?,
                stdout.try_clone().step("stdout")?,
                stderr.try_clone().step("stderr")?,
            ]),
            Stdio::Streams(streams) => start_options::duplicate(streams).step("stdio"),
            Stdio::Terminal { console, relayed } => {
                let size = process_of(self.launch.spec)?.console_size();
                terminal::open(root, ids, size)?.hand_over(console, *relayed)
            }
        }
    }
}

fn null(root: &Root) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    root.open(Path::new("/dev/null"), flags, Symlinks::Refuse)
        .step("stdin")
}

#[allow(deprecated, reason = "specifications still have them")]
fn has_root_hooks(hooks: &Hooks) -> bool {
    [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
    ]
    .into_iter()
    .any(|list| list.iter().flatten().next().is_some())
}

/// Hides this process from the container's other processes until it is one of them (as in `exec`), and gives it a
/// session without a terminal.
pub(crate) fn isolate() -> Result<(), Failure> {
    use rustix::process::DumpableBehavior;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("dumpable")?;
    rustix::process::setsid().step("session")?;
    // Files are created with exact modes; the program's umask is set before `execve`.
    rustix::process::umask(0.into());
    Ok(())
}

/// The `process` object of a specification.
pub(crate) fn process_of(spec: &Spec) -> Result<&Process, Failure> {
    spec.process()
        .as_ref()
        .ok_or("the specification has no process")
        .step("specification")
}
