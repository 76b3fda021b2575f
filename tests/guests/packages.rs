//! The Debian packages, as `cargo xtask package --profile dev` built them.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tucano_testkit::{needs, tool};
use tucano_tests::images::workspace;

#[test]
fn packages_keep_to_debians_policy() {
    if !needs(&[tool("lintian")]) || !are_built() {
        return;
    }
    let output = Command::new("lintian")
        .args(["--fail-on", "error", "--tag-display-limit", "0"])
        // Tests run as root, in containers too.
        .arg("--allow-root")
        .args(packages())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("E: "), "{text}");
}

#[test]
fn packages_contain_static_programs_and_no_secrets() {
    if !needs(&[tool("dpkg-deb"), tool("readelf")]) || !are_built() {
        return;
    }
    for (package, program) in [
        ("tucano-ctl", "usr/sbin/tucano_ctld"),
        ("tucano-ctl", "usr/sbin/tucano_balancerd"),
        ("tucano-agent", "usr/sbin/tucano_agentd"),
        ("tucano-agent", "usr/sbin/tucano_oci"),
        ("tucano-agent", "usr/lib/tucano/tucano_backup"),
        ("tucano-cli", "usr/bin/tucano"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let extracted = Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package_of(package), directory.path()])
            .status()
            .unwrap();
        assert!(extracted.success(), "{package}");
        let program = directory.path().join(program);
        let headers = Command::new("readelf")
            .arg("--segments")
            .arg(&program)
            .output();
        let headers = String::from_utf8(headers.unwrap().stdout).unwrap();
        // The kind that names the dynamic loader (elf(5)).
        assert!(
            headers.contains("LOAD") && !headers.contains("INTERP"),
            "{headers}"
        );
        let version = Command::new(&program).arg("--version").output().unwrap();
        assert!(version.status.success(), "{version:?}");
        for secret in ["etc/tucano/token", "etc/tucano/agent-token"] {
            assert!(!directory.path().join(secret).exists(), "{secret}");
        }
    }
}

/// Whether there are packages; `cargo xtask test` builds them.
pub(crate) fn are_built() -> bool {
    let built = directory().is_dir();
    let message = "SKIPPED: this test needs `cargo xtask package --profile dev`";
    assert!(
        built || env::var_os("TUCANO_TESTS_MUST_RUN").is_none(),
        "{message}"
    );
    if !built {
        eprintln!("{message}");
    }
    built
}

/// All three.
pub(crate) fn packages() -> [PathBuf; 3] {
    all_in(&directory())
}

/// Those of an earlier version, where there are any.
pub(crate) fn previous_packages() -> Option<[PathBuf; 3]> {
    let Some(place) = env::var_os("TUCANO_PREVIOUS_PACKAGES") else {
        eprintln!(
            "SKIPPED: this test needs packages of an earlier version (cargo xtask test --long)"
        );
        return None;
    };
    Some(all_in(&workspace().join(place)))
}

fn all_in(directory: &Path) -> [PathBuf; 3] {
    ["tucano-ctl", "tucano-agent", "tucano-cli"].map(|name| package_in(directory, name))
}

fn package_of(name: &str) -> PathBuf {
    package_in(&directory(), name)
}

fn package_in(directory: &Path, name: &str) -> PathBuf {
    let prefix = format!("{name}_");
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
        })
        .unwrap_or_else(|| panic!("there is no {name} in {}", directory.display()))
}

fn directory() -> PathBuf {
    workspace().join("target/packages/dev")
}

/// The three packages of the next version, which changes the configurations it comes with.
pub(crate) fn next_version(directory: &Path) -> Vec<PathBuf> {
    let dpkg_deb = |arguments: &[&OsStr]| {
        let status = Command::new("dpkg-deb").args(arguments).status().unwrap();
        assert!(status.success(), "dpkg-deb {arguments:?}");
    };
    let repack = |package: PathBuf| {
        let tree = directory.join("tree");
        dpkg_deb(&["--raw-extract".as_ref(), package.as_ref(), tree.as_ref()]);
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).unwrap();
        let newer = text.replace("Version: ", "Version: 9.");
        assert_ne!(newer, text);
        fs::write(&control, newer).unwrap();
        for name in ["ctl.toml", "agent.toml"] {
            let path = tree.join("etc/tucano").join(name);
            if let Ok(text) = fs::read_to_string(&path) {
                fs::write(&path, format!("# Of the next version.\n{text}")).unwrap();
            }
        }
        let next = directory.join(package.file_name().unwrap());
        let fast = ["--root-owner-group", "-Zgzip", "-z1", "--build"].map(OsStr::new);
        dpkg_deb(&[&fast[..], &[tree.as_ref(), next.as_ref()]].concat());
        fs::remove_dir_all(&tree).unwrap();
        next
    };
    packages().map(repack).into()
}

/// Where a machine finds files of the workspace.
pub(crate) fn inside(paths: impl IntoIterator<Item = PathBuf>) -> String {
    let place = |path: PathBuf| {
        let below = path.strip_prefix(workspace()).unwrap().to_owned();
        format!("/workspace/{}", below.display())
    };
    paths.into_iter().map(place).collect::<Vec<_>>().join(" ")
}
