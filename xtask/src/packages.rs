//! What the system must have, and why: the one place that lists packages.

use std::{env::consts::ARCH, path::Path};

use crate::run::find_program;

/// What something is needed for; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To compile the workspace and the sample images.
    Build,
    /// To run a cluster.
    Run,
    /// To run every test.
    Test,
    /// To build and run the conformance suite.
    Conformance,
}

/// A Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) purpose: Purpose,
    pub(crate) reason: &'static str,
    evidence: Evidence,
}

/// What shows that a package, or something as good, is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    Program(&'static str),
    /// A file in the directory of the architecture's libraries.
    Library(&'static str),
    /// A file or directory.
    File(&'static str),
}

/// Every package, each with its reason.
pub(crate) const PACKAGES: [Package; 40] = [
    program(
        "gcc",
        "gcc",
        Purpose::Build,
        "links Rust programs, and compiles SQLite, which the controller's store is",
    ),
    Package {
        name: "libc6-dev",
        purpose: Purpose::Build,
        reason: "the static C library, for the sample images' programs",
        evidence: Evidence::Library("libc.a"),
    },
    program(
        "binutils",
        "strip",
        Purpose::Build,
        "packages have programs without symbols",
    ),
    program(
        "iproute2",
        "ip",
        Purpose::Run,
        "virtual hosts' links and addresses",
    ),
    program(
        "nftables",
        "nft",
        Purpose::Run,
        "forwards a node's ports to its processes",
    ),
    program(
        "util-linux",
        "nsenter",
        Purpose::Test,
        "tests look into namespaces",
    ),
    program(
        "strace",
        "strace",
        Purpose::Test,
        "system calls that fail as on other kernels",
    ),
    program(
        "umoci",
        "umoci",
        Purpose::Test,
        "tests deploy images that another tool made",
    ),
    program(
        "skopeo",
        "skopeo",
        Purpose::Test,
        "the same, with its archives",
    ),
    program("buildah", "buildah", Purpose::Test, "the same"),
    program(
        "podman",
        "podman",
        Purpose::Test,
        "tests run containers by it on this runtime (it brings conmon)",
    ),
    program(
        "docker.io",
        "dockerd",
        Purpose::Test,
        "tests push to the controller's registry by it, and run containers by it and its containerd on this runtime",
    ),
    program(
        "docker-registry",
        "docker-registry",
        Purpose::Test,
        "tests pull from a registry that is not ours",
    ),
    program(
        "openssl",
        "openssl",
        Purpose::Test,
        "makes that registry's certificate",
    ),
    program(
        "runc",
        "runc",
        Purpose::Test,
        "tests run bundles that it wrote the configuration of",
    ),
    program(
        "bsdutils",
        "script",
        Purpose::Test,
        "tests give programs a terminal",
    ),
    program("curl", "curl", Purpose::Test, "tests deploy by curl alone"),
    program("jq", "jq", Purpose::Test, "scripts read the API's JSON"),
    program(
        "busybox-static",
        "busybox",
        Purpose::Test,
        "a shell for containers of tests",
    ),
    program(
        "user-mode-linux",
        "linux.uml",
        Purpose::Test,
        "tests boot a kernel with cgroup v2 alone",
    ),
    program(
        "iptables",
        "iptables-legacy",
        Purpose::Test,
        "forwards ports where there is no nftables, as in that kernel",
    ),
    program(
        "kmod",
        "modprobe",
        Purpose::Test,
        "that kernel loads its modules",
    ),
    program(
        "qemu-system-x86",
        "qemu-system-x86_64",
        Purpose::Test,
        "tests boot a kernel of Debian's, with all that it has",
    ),
    program(
        "e2fsprogs",
        "mkfs.ext4",
        Purpose::Test,
        "that kernel's disk is formatted",
    ),
    program(
        "apparmor",
        "apparmor_parser",
        Purpose::Test,
        "a kernel of the tests confines containers by profiles",
    ),
    program(
        "secilc",
        "secilc",
        Purpose::Test,
        "another one labels them, by a policy of the tests'",
    ),
    program(
        "shellcheck",
        "shellcheck",
        Purpose::Test,
        "tests look through every shell script",
    ),
    program("ruby", "ruby", Purpose::Test, "tests read the Vagrantfile"),
    program(
        "vagrant",
        "vagrant",
        Purpose::Test,
        "tests validate the Vagrantfile",
    ),
    program(
        "mmdebstrap",
        "mmdebstrap",
        Purpose::Test,
        "tests boot machines with systemd from Debian's packages",
    ),
    Package {
        name: "debian-archive-keyring",
        purpose: Purpose::Test,
        reason: "the keys of those packages",
        evidence: Evidence::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
    },
    program(
        "lintian",
        "lintian",
        Purpose::Test,
        "packages keep to Debian's policy",
    ),
    program(
        "bash",
        "bash",
        Purpose::Test,
        "tests open connections from shells",
    ),
    program(
        "git",
        "git",
        Purpose::Test,
        "cargo deny reads its advisories from a repository",
    ),
    program(
        "ca-certificates",
        "update-ca-certificates",
        Purpose::Test,
        "cargo and git fetch over TLS",
    ),
    program(
        "golang-go",
        "go",
        Purpose::Conformance,
        "the conformance suite is written in Go",
    ),
    Package {
        name: "golang-github-opencontainers-runtime-tools-dev",
        purpose: Purpose::Conformance,
        reason: "the suite's libraries, and those that they need",
        evidence: Evidence::File("/usr/share/gocode/src/github.com/opencontainers/runtime-tools"),
    },
    Package {
        name: "golang-github-google-uuid-dev",
        purpose: Purpose::Conformance,
        reason: "the suite names its containers by it",
        evidence: Evidence::File("/usr/share/gocode/src/github.com/google/uuid"),
    },
    program(
        "crun",
        "crun",
        Purpose::Conformance,
        "the suite runs for it beside ours",
    ),
    program(
        "xz-utils",
        "xz",
        Purpose::Conformance,
        "the suite's source is packed by it",
    ),
];

impl Package {
    pub(crate) fn is_there(&self) -> bool {
        match self.evidence {
            Evidence::Program(name) => find_program(name).is_some(),
            Evidence::File(path) => Path::new(path).exists(),
            Evidence::Library(name) => {
                let of_architecture = format!("/usr/lib/{ARCH}-linux-gnu");
                [of_architecture.as_str(), "/usr/lib64", "/usr/lib"]
                    .iter()
                    .any(|directory| Path::new(directory).join(name).is_file())
            }
        }
    }
}

/// What is not there of what a purpose needs.
pub(crate) fn missing(purpose: Purpose) -> Vec<Package> {
    let needed = PACKAGES.iter().filter(|package| package.purpose <= purpose);
    needed
        .filter(|package| !package.is_there())
        .copied()
        .collect()
}

const fn program(
    name: &'static str,
    program: &'static str,
    purpose: Purpose,
    reason: &'static str,
) -> Package {
    Package {
        name,
        purpose,
        reason,
        evidence: Evidence::Program(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_listed_once_and_for_a_reason() {
        let mut names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
        assert!(PACKAGES.iter().all(|package| !package.reason.is_empty()));
    }

    #[test]
    fn a_purpose_includes_what_those_before_it_need() {
        let count = |purpose| {
            PACKAGES
                .iter()
                .filter(|package| package.purpose <= purpose)
                .count()
        };
        assert!(
            count(Purpose::Build) < count(Purpose::Run) && count(Purpose::Run) < PACKAGES.len()
        );
        assert!(count(Purpose::Run) < count(Purpose::Test));
        assert_eq!(count(Purpose::Conformance), PACKAGES.len());
    }

    #[test]
    fn what_is_there_is_found() {
        assert!(program("sh", "sh", Purpose::Run, "").is_there());
        assert!(!program("x", "no-such-program", Purpose::Run, "").is_there());
    }
}
