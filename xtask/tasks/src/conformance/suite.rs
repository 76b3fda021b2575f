//! The suite's source and programs. Debian has the source in a package of that kind, and all libraries but one, which is for
//! printing results: `tap_library.go` stands in for it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::run::step;

const SOURCE: &str = "golang-github-opencontainers-runtime-tools";
/// Releases of Debian to take the source from; the suite is the same on each machine, whatever that runs.
const RELEASES: [&str; 2] = ["trixie", "sid"];
/// Where Go looks for the suite, and where for the library.
const PLACE: &str = "go/src/github.com/opencontainers/runtime-tools";
const LIBRARY: &str = "go/src/github.com/mndrix/tap-go";
/// Debian's Go libraries.
const SYSTEM: &str = "/usr/share/gocode";
/// How long one program may take, in seconds: some wait for containers that a runtime does not start.
const PATIENCE: &str = "60";

/// The suite, built.
pub(super) struct Suite {
    directory: PathBuf,
}

impl Suite {
    /// Gets and builds what is not there yet.
    pub(super) fn get(directory: &Path) -> anyhow::Result<Self> {
        let suite = Self {
            directory: directory.to_owned(),
        };
        fs::create_dir_all(suite.directory.join("tmp"))?;
        if !suite.place().is_dir() {
            suite.unpack(&suite.download()?)?;
        }
        let library = suite.directory.join(LIBRARY);
        fs::create_dir_all(&library)?;
        fs::write(library.join("tap.go"), include_str!("tap_library.go"))?;
        suite.build()?;
        Ok(suite)
    }

    /// The names of its programs.
    pub(super) fn tests(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.place().join("validation"))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            // Which the programs share.
            if entry.file_type()?.is_dir() && name != "util" {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Runs one of them for a runtime, in a mount namespace of its own. On hybrid hosts it does not show the cgroup2, which has
    /// no controller: crun refuses to run beside it.
    pub(super) fn command(&self, test: &str, runtime: &Path) -> Command {
        const HIDE: &str = "if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi\n\
                            exec timeout \"$1\" \"$2\"";
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                HIDE,
                "sh",
                PATIENCE,
            ])
            .arg(self.program(test))
            .current_dir(self.place())
            .env("RUNTIME", runtime)
            .env("TMPDIR", self.directory.join("tmp"))
            .stdin(std::process::Stdio::null());
        command
    }

    fn place(&self) -> PathBuf {
        self.directory.join(PLACE)
    }

    fn program(&self, test: &str) -> PathBuf {
        self.directory.join("programs").join(test)
    }

    fn download(&self) -> anyhow::Result<PathBuf> {
        let mirror = mirror()?;
        for release in RELEASES {
            if let Some(archive) = self.archive()? {
                return Ok(archive);
            }
            let list = self.directory.join("sources.list");
            fs::write(&list, format!("deb-src {mirror} {release} main\n"))?;
            let lists = self.directory.join("lists");
            fs::create_dir_all(&lists)?;
            let apt = || {
                let mut command = Command::new("apt-get");
                command
                    .arg("--quiet=2")
                    .arg(format!("--option=Dir::Etc::SourceList={}", list.display()))
                    .arg("--option=Dir::Etc::SourceParts=/dev/null")
                    .arg(format!("--option=Dir::State::Lists={}", lists.display()))
                    .current_dir(&self.directory);
                command
            };
            let what = format!("looking for the suite's source in {release}");
            let found = step(&what, apt().arg("update")).and_then(|()| {
                let mut source = apt();
                source.args(["source", "--download-only", SOURCE]);
                step("downloading it", &mut source)
            });
            if let Err(error) = found {
                // It may be Debian's own changes that are missing, which are not needed.
                eprintln!("xtask: {error:#}");
            }
        }
        let archive = self.archive()?;
        archive.with_context(|| format!("the source package {SOURCE} is not to be had"))
    }

    /// What apt has downloaded and verified.
    fn archive(&self) -> anyhow::Result<Option<PathBuf>> {
        let names = fs::read_dir(&self.directory)?;
        let mut paths = names.filter_map(Result::ok).map(|entry| entry.path());
        Ok(paths.find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(SOURCE) && name.contains(".orig.tar.")
        }))
    }

    fn unpack(&self, archive: &Path) -> anyhow::Result<()> {
        let fresh = self.directory.join("unpacked");
        fs::create_dir_all(&fresh)?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(&fresh);
        tar.arg("--strip-components=1");
        step("unpacking it", &mut tar)?;
        let place = self.place();
        fs::create_dir_all(place.parent().unwrap_or(&place))?;
        fs::rename(&fresh, &place).context("cannot put the suite into its place")
    }

    fn build(&self) -> anyhow::Result<()> {
        let inside = self.place().join("runtimetest");
        self.go("cmd/runtimetest", &inside)?;
        for test in self.tests()? {
            self.go(&format!("validation/{test}"), &self.program(&test))?;
        }
        Ok(())
    }

    /// Static programs: they run in containers that hold nothing else.
    fn go(&self, package: &str, program: &Path) -> anyhow::Result<()> {
        if program.is_file() {
            return Ok(());
        }
        let own = self.directory.join("go");
        let path = env::join_paths([own.as_path(), Path::new(SYSTEM)])?;
        let mut go = Command::new("go");
        go.args(["build", "-o"])
            .arg(program)
            .arg(format!("./{package}"))
            .current_dir(self.place())
            .env("GO111MODULE", "off")
            .env("GOPATH", path)
            .env("CGO_ENABLED", "0");
        step(&format!("building {package}"), &mut go)
    }
}

/// Where this machine's packages come from.
fn mirror() -> anyhow::Result<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ])
        .output()
        .context("cannot run apt-get: the suite's source comes as a package of Debian")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().next() {
        Some(mirror) => Ok(mirror.to_owned()),
        None => bail!("apt has no lists of packages: run apt-get update"),
    }
}
