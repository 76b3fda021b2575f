//! A root file system with one program and its container, which is removed when the test ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use tucano_oci_runtime::{
    cgroup::{self, Cgroup},
    launch::{Exit, Launch, LogLimits, MountedImage, Rootfs},
    profile::{HostFile, Sandbox},
    supervisor::{self, Error, Running, Status},
};
use tucano_testkit::{programs, wait_for, wait_until};

/// Time limit; only reached if something is broken.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A file of the host as a container sees it.
pub(crate) fn host_file(source: PathBuf, destination: &str) -> HostFile {
    HostFile {
        source,
        destination: destination.into(),
        is_executable: false,
    }
}

/// The runtime's program.
pub(crate) fn program() -> PathBuf {
    programs().join("tucano_oci")
}

/// A container with a private directory.
pub(crate) struct Case {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) user: Option<String>,
    /// Directories that stay writable below a read-only root.
    pub(crate) writable: Vec<PathBuf>,
    /// Images that are mounted.
    pub(crate) images: Vec<MountedImage>,
    pub(crate) logs: LogLimits,
    pub(crate) init: bool,
    parent: String,
}

impl Case {
    /// A container that runs the inmate with these arguments.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tucano-runtime-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layer = directory.path().join("layer");
        copy_tree(inmate_rootfs(), &layer);
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        let parent = name.to_owned();
        let mut args = vec!["/inmate".to_owned()];
        args.extend(arguments.iter().map(ToString::to_string));
        Self {
            sandbox: Sandbox {
                args,
                env: vec!["PATH=/bin:/".into(), "GREETING=hello".into()],
                hostname: "cell".into(),
                memory_bytes: 64 << 20,
                pids: 64,
                cgroup: format!("{parent}/box"),
                ..Sandbox::default()
            },
            user: None,
            writable: Vec::new(),
            images: Vec::new(),
            logs: LogLimits::default(),
            init: false,
            parent,
            directory,
        }
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.directory.path().join("layer")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch {
            environment_file: None,
            id: "box".into(),
            state_dir: self.home(),
            spec: self.sandbox.spec().unwrap(),
            rootfs: Rootfs::Overlay {
                layers: vec![self.layer()],
                writable: self.writable.clone(),
                images: self.images.clone(),
            },
            user: self.user.clone(),
            logs: self.logs,
            init: self.init,
        }
    }

    pub(crate) fn try_start(&self) -> Result<Running, Error> {
        supervisor::start(&program(), &self.launch())
    }

    pub(crate) fn start(&self) -> Running {
        self.try_start().unwrap()
    }

    /// Starts it, waits for its exit, and returns the exit status and its stdout.
    pub(crate) fn run(&self) -> (Exit, String) {
        self.start_to_end(&self.launch());
        (self.wait_for_exit(), self.stdout())
    }

    /// Starts a container that exits by itself, perhaps before the start is reported.
    pub(crate) fn start_to_end(&self, launch: &Launch) {
        match supervisor::start(&program(), launch) {
            Ok(_) | Err(Error::Ended) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn wait_for_exit(&self) -> Exit {
        wait_for(
            "the container's exit",
            TIMEOUT,
            || match supervisor::find(&self.home()).unwrap() {
                Status::Exited(exit) => Some(exit),
                Status::Running(_) => None,
                other => panic!("{other:?}"),
            },
        )
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.home().join("stdout.log")).unwrap_or_default()
    }

    pub(crate) fn exec(&self, command: &[&str]) -> Result<i32, Error> {
        let command: Vec<_> = command.iter().map(ToString::to_string).collect();
        supervisor::exec(&program(), &self.home(), &command, TIMEOUT)
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::of(&self.home()).unwrap().unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if let Ok(Some(cgroup)) = Cgroup::of(&self.home()) {
            cgroup.destroy().unwrap();
        }
        // The supervisor still writes to the directory that is removed next.
        wait_until("the supervisor's end", TIMEOUT, || {
            !matches!(supervisor::find(&self.home()), Ok(Status::Running(_)))
        });
        cgroup::remove_parent(&self.parent).unwrap();
    }
}

/// A field of `/proc/<pid>/status`, as printed by the inmate.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
}

/// A root file system of the inmate and its libraries, created once per build.
fn inmate_rootfs() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let inmate = programs().join("tucano_oci_inmate");
        let built = fs::metadata(&inmate).unwrap().modified().unwrap();
        let built = built.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("inmate-{built}"));
        if !shared.exists() {
            let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            make_rootfs(&inmate, place.path());
            // Another test program may have created it meanwhile.
            if fs::rename(place.path(), &shared).is_ok() {
                let _moved = place.keep();
            }
        }
        shared
    })
}

fn make_rootfs(inmate: &Path, place: &Path) {
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
    for directory in ["etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(place.join(directory)).unwrap();
    }
    fs::copy(inmate, place.join("inmate")).unwrap();
    fs::set_permissions(place.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for library in libraries(inmate) {
        let inside = place.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&library, inside).unwrap();
    }
    let users = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:\n";
    fs::write(place.join("etc/passwd"), users).unwrap();
    fs::write(place.join("etc/group"), "root:x:0:\nlogs:x:50:web\n").unwrap();
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Symlinks where it can: the program is large, and layers are never written to.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
