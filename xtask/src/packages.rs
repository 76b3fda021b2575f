//! What the system must have, and why: the one place that lists packages. Essential packages of Debian are not listed.

use std::{env::consts::ARCH, path::Path};

use crate::run::find_program;

/// What a package is needed for; each purpose includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To compile the workspace and the sample images.
    Build,
    /// To run a cluster.
    Run,
    /// To check the dependencies against the advisories.
    Deny,
    /// To run every test.
    Test,
    /// To build and run the conformance suite.
    Conformance,
}

/// A Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: Purpose,
    /// Why.
    pub reason: &'static str,
    evidence: Evidence,
}

/// What shows that a package, or something as good, is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// The first of these programs; the others come with it.
    Programs(&'static [&'static str]),
    /// A file in the directory of the architecture's libraries.
    Library(&'static str),
    /// A file or directory.
    File(&'static str),
}

/// Every package, each with its reason.
#[rustfmt::skip]
pub const PACKAGES: [Package; 46] = [
    package("gcc", Purpose::Build, Evidence::Programs(&["gcc", "cc"]),
        "links Rust programs, and compiles the C of SQLite, zstd and ring"),
    package("libc6-dev", Purpose::Build, Evidence::Library("libc.a"),
        "the static C library, for the sample images' programs"),
    package("ca-certificates", Purpose::Build, Evidence::File("/etc/ssl/certs/ca-certificates.crt"),
        "cargo fetches the dependencies over TLS"),
    package("iproute2", Purpose::Run, Evidence::Programs(&["ip", "ss"]),
        "virtual hosts' links and addresses"),
    package("nftables", Purpose::Run, Evidence::Programs(&["nft"]),
        "forwards a node's ports to its processes"),
    package("mount", Purpose::Run, Evidence::Programs(&["mount", "umount", "losetup"]),
        "mounts volumes by loop devices"),
    package("e2fsprogs", Purpose::Run, Evidence::Programs(&["mkfs.ext4", "e2fsck", "resize2fs", "chattr"]),
        "volumes are file systems of their own"),
    package("xfsprogs", Purpose::Test, Evidence::Programs(&["mkfs.xfs"]),
        "volumes have project quotas on XFS too"),
    package("binutils", Purpose::Test, Evidence::Programs(&["strip", "readelf"]),
        "packages contain programs without symbols"),
    package("python3", Purpose::Test, Evidence::Programs(&["python3"]),
        "tests of the runtime ask the kernel who owns a user namespace"),
    package("util-linux", Purpose::Test, Evidence::Programs(&["nsenter", "unshare", "chrt", "ionice", "taskset"]),
        "tests look into namespaces"),
    package("libcap2-bin", Purpose::Test, Evidence::Programs(&["setcap"]),
        "tests run programs with file capabilities"),
    package("diffutils", Purpose::Test, Evidence::Programs(&["diff3"]),
        "tests of the provisioning merge settings"),
    package("strace", Purpose::Test, Evidence::Programs(&["strace"]),
        "makes system calls fail as they fail on other kernels"),
    package("umoci", Purpose::Test, Evidence::Programs(&["umoci"]),
        "makes images that tests deploy"),
    package("skopeo", Purpose::Test, Evidence::Programs(&["skopeo"]),
        "copies images that tests deploy"),
    package("buildah", Purpose::Test, Evidence::Programs(&["buildah"]),
        "makes images that tests deploy"),
    package("podman", Purpose::Test, Evidence::Programs(&["podman", "conmon"]),
        "tests run containers by it on this runtime (it brings conmon)"),
    package("docker.io", Purpose::Test, Evidence::Programs(&["dockerd", "docker", "ctr"]),
        "tests push to the controller's registry by it, and run containers by it and its containerd on this runtime"),
    package("docker-registry", Purpose::Test, Evidence::Programs(&["docker-registry"]),
        "tests pull from a registry of another make"),
    package("openssl", Purpose::Test, Evidence::Programs(&["openssl"]),
        "makes that registry's certificate"),
    package("runc", Purpose::Test, Evidence::Programs(&["runc"]),
        "tests run bundles whose configuration it wrote"),
    package("bsdutils", Purpose::Test, Evidence::Programs(&["script"]),
        "gives programs a terminal"),
    package("curl", Purpose::Test, Evidence::Programs(&["curl"]),
        "tests deploy by curl alone"),
    package("jq", Purpose::Test, Evidence::Programs(&["jq"]),
        "scripts read the API's JSON"),
    package("busybox-static", Purpose::Test, Evidence::Programs(&["busybox"]),
        "the shell of the tests' containers"),
    package("user-mode-linux", Purpose::Test, Evidence::Programs(&["linux.uml"]),
        "tests boot a kernel that has cgroup v2 alone"),
    package("iptables", Purpose::Test, Evidence::Programs(&["iptables-legacy"]),
        "forwards ports where there is no nftables, as on that kernel"),
    package("kmod", Purpose::Test, Evidence::Programs(&["modprobe", "depmod"]),
        "that kernel loads its modules"),
    package("qemu-system-x86", Purpose::Test, Evidence::Programs(&["qemu-system-x86_64"]),
        "tests boot Debian's kernel"),
    package("apparmor", Purpose::Test, Evidence::Programs(&["apparmor_parser"]),
        "a kernel of the tests confines containers by profiles"),
    package("secilc", Purpose::Test, Evidence::Programs(&["secilc"]),
        "another one labels them, by a policy of the tests'"),
    package("shellcheck", Purpose::Test, Evidence::Programs(&["shellcheck"]),
        "checks every shell script"),
    package("ruby", Purpose::Test, Evidence::Programs(&["ruby"]),
        "tests read the Vagrantfile"),
    package("vagrant", Purpose::Test, Evidence::Programs(&["vagrant"]),
        "tests validate the Vagrantfile"),
    package("mmdebstrap", Purpose::Test, Evidence::Programs(&["mmdebstrap"]),
        "tests boot machines with systemd from Debian's packages"),
    package("debian-archive-keyring", Purpose::Test, Evidence::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "the keys of those packages"),
    package("lintian", Purpose::Test, Evidence::Programs(&["lintian"]),
        "packages keep to Debian's policy"),
    package("bash", Purpose::Test, Evidence::Programs(&["bash"]),
        "tests open connections from shells"),
    package("restic", Purpose::Test, Evidence::Programs(&["restic"]),
        "reads and checks the backups that tests make, and makes some"),
    package("git", Purpose::Deny, Evidence::Programs(&["git"]),
        "cargo deny reads its advisories from a repository"),
    package("golang-go", Purpose::Conformance, Evidence::Programs(&["go"]),
        "the conformance suite is written in Go"),
    package("golang-github-opencontainers-runtime-tools-dev", Purpose::Conformance, Evidence::File("/usr/share/gocode/src/github.com/opencontainers/runtime-tools"),
        "the suite's libraries, and those that they need"),
    package("golang-github-google-uuid-dev", Purpose::Conformance, Evidence::File("/usr/share/gocode/src/github.com/google/uuid"),
        "the suite names its containers by it"),
    package("crun", Purpose::Conformance, Evidence::Programs(&["crun"]),
        "the suite runs for it beside ours"),
    package("xz-utils", Purpose::Conformance, Evidence::Programs(&["xz"]),
        "the suite's source is packed by it"),
];

impl Package {
    /// Whether it, or something as good, is installed.
    pub fn is_there(&self) -> bool {
        match self.evidence {
            Evidence::Programs(programs) => programs
                .first()
                .is_some_and(|name| find_program(name).is_some()),
            Evidence::File(path) => Path::new(path).exists(),
            Evidence::Library(name) => {
                let of_architecture = format!("/usr/lib/{ARCH}-linux-gnu");
                [of_architecture.as_str(), "/usr/lib64", "/usr/lib"]
                    .iter()
                    .any(|directory| Path::new(directory).join(name).is_file())
            }
        }
    }

    /// Whether it brings this program.
    pub fn brings(&self, program: &str) -> bool {
        matches!(self.evidence, Evidence::Programs(programs) if programs.contains(&program))
    }
}

/// The packages of a purpose that are not there.
pub fn missing(purpose: Purpose) -> Vec<Package> {
    missing_of(|package| package.purpose <= purpose)
}

/// The packages that are not there of those that `is_needed` selects.
pub fn missing_of(is_needed: impl Fn(&Package) -> bool) -> Vec<Package> {
    let needed = PACKAGES.iter().filter(|package| is_needed(package));
    needed
        .filter(|package| !package.is_there())
        .copied()
        .collect()
}

const fn package(
    name: &'static str,
    purpose: Purpose,
    evidence: Evidence,
    reason: &'static str,
) -> Package {
    Package {
        name,
        purpose,
        reason,
        evidence,
    }
}

#[cfg(test)]
mod tests;
