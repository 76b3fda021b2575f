//! Attacks by symbolic links of the image.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::{Outside, add_mount, bind, refused, without_mounts_below},
};

/// CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: a naive runtime follows the link, mounts over what it names, writes there what
/// was meant for the kernel, or hides nothing of the real `/proc`.
#[test]
fn proc_sys_and_dev_as_links_are_refused() {
    if !needs(&NEEDS) {
        return;
    }
    for name in ["proc", "sys", "dev"] {
        let case = Case::new("true");
        let outside = Outside::of(&case);
        for target in [
            outside.0.clone(),
            "../../../../../../../../tmp".into(),
            "/etc".into(),
            "self".into(),
        ] {
            symlink(&target, case.path("rootfs").join(name)).unwrap();
            let said = refused(&case);
            assert!(
                said.contains("symbolic link"),
                "{name} -> {target:?}: {said}"
            );
            assert!(case.is_gone(), "{name} -> {target:?}");
            fs::remove_file(case.path("rootfs").join(name)).unwrap();
        }
        outside.assert_untouched();
    }
}

/// The same below, where the image has `/dev` and `/sys` to itself.
#[test]
fn links_below_dev_and_sys_are_refused() {
    if !needs(&NEEDS) {
        return;
    }
    for (place, kind, deep) in [
        ("dev", "tmpfs", "dev/shm"),
        ("dev", "devpts", "dev/pts"),
        ("dev", "mqueue", "dev/mqueue"),
        ("sys", "tmpfs", "sys/fs/cgroup"),
    ] {
        let mut case = Case::new("true");
        let outside = Outside::of(&case);
        without_mounts_below(&mut case, &format!("/{place}"));
        let mount = json!({"destination": format!("/{deep}"), "type": kind, "source": kind});
        add_mount(&mut case, mount);
        let link = case.path("rootfs").join(deep);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&outside.0, link).unwrap();
        let said = refused(&case);
        assert!(said.contains("symbolic link"), "{deep}: {said}");
        outside.assert_untouched();
    }
}

/// CVE-2021-30465, CVE-2024-45310: a naive runtime makes the directories and files that it mounts onto by their paths on the
/// host, and so outside, where a link in a volume leads.
#[test]
fn targets_of_mounts_are_made_inside_only() {
    if !needs(&NEEDS) {
        return;
    }
    for target in ["absolute", "climbing"] {
        let mut case = Case::new("true");
        let outside = Outside::of(&case);
        let volume = case.path("volume");
        fs::create_dir(&volume).unwrap();
        let target: PathBuf = match target {
            "absolute" => outside.0.clone(),
            _ => Path::new("../../../../../../../../../..")
                .join(outside.0.strip_prefix("/").unwrap()),
        };
        symlink(&target, volume.join("a")).unwrap();
        let file = case.path("file");
        fs::write(&file, "content").unwrap();
        add_mount(&mut case, bind(&volume, "/volume"));
        add_mount(&mut case, bind(&file, "/volume/a/b/file"));
        add_mount(
            &mut case,
            json!({"destination": "/volume/a/directory", "type": "tmpfs", "source": "tmpfs"}),
        );
        case.config["process"]["cwd"] = "/volume/a/cwd".into();
        // Either refused or created inside.
        case.create();
        outside.assert_untouched();
    }
}

/// A naive runtime that hides a path by its name hides something else, or nothing.
#[test]
fn masked_paths_cannot_be_redirected() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat /secret/file /other/file");
    let outside = Outside::of(&case);
    for (name, text) in [("secret", "secret"), ("other", "other")] {
        fs::create_dir(case.path("rootfs").join(name)).unwrap();
        fs::write(case.path("rootfs").join(name).join("file"), text).unwrap();
    }
    symlink(outside.file(), case.path("rootfs/link")).unwrap();
    case.config["linux"]["maskedPaths"] = json!(["/secret/file", "/link", "/link/deeper"]);
    case.config["linux"]["readonlyPaths"] = json!(["/link", "/other"]);
    let output = case.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "other",
        "{output:?}"
    );
    outside.assert_untouched();
}
