//! Attacks by device nodes of the image.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
};

use rustix::fs::{CWD, FileType, makedev, mknodat};
use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::{Outside, refused, without_mounts_below},
};

/// A container whose `/dev` belongs to the image.
fn with_own_dev(script: &str) -> Case {
    let mut case = Case::new(script);
    without_mounts_below(&mut case, "/dev");
    fs::create_dir(case.path("rootfs/dev")).unwrap();
    case
}

/// CVE-2025-31133: a naive runtime hides `/proc/kcore` by binding the container's `/dev/null` over it, which is a link to a
/// file of procfs that the container then can write to, or is no device, and then hides nothing.
#[test]
fn dev_null_cannot_be_something_else() {
    if !needs(&NEEDS) {
        return;
    }
    for kind in ["link", "climbing", "file", "zero", "block"] {
        let mut case = with_own_dev("true");
        let outside = Outside::of(&case);
        let null = case.path("rootfs/dev/null");
        match kind {
            "link" => symlink("/proc/sys/kernel/core_pattern", &null).unwrap(),
            "climbing" => symlink(outside.file(), &null).unwrap(),
            "file" => fs::write(&null, "").unwrap(),
            "zero" => mknodat(
                CWD,
                &null,
                FileType::CharacterDevice,
                0o666.into(),
                makedev(1, 5),
            )
            .unwrap(),
            _ => mknodat(
                CWD,
                &null,
                FileType::BlockDevice,
                0o666.into(),
                makedev(1, 3),
            )
            .unwrap(),
        }
        case.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        let said = refused(&case);
        assert!(said.contains("/dev/null"), "{kind}: {said}");
        assert!(case.is_gone());
        outside.assert_untouched();
    }
}

/// CVE-2025-52565: a naive runtime binds `/dev/pts/0` over `/dev/console`, both of which are links in the image; it opens and
/// chowns what they name.
#[test]
fn the_terminal_is_not_looked_up_in_the_image() {
    if !needs(&NEEDS) {
        return;
    }
    for place in ["console", "pts", "ptmx"] {
        let mut case = with_own_dev("true");
        let outside = Outside::of(&case);
        let link = case.path("rootfs/dev").join(place);
        match place {
            "console" => {
                let devpts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620"]});
                case.config["mounts"].as_array_mut().unwrap().push(devpts);
                symlink(outside.file(), link).unwrap();
            }
            "pts" => symlink(&outside.0, link).unwrap(),
            _ => {
                fs::create_dir(case.path("rootfs/dev/pts")).unwrap();
                symlink(outside.file(), case.path("rootfs/dev/pts/ptmx")).unwrap();
            }
        }
        case.config["process"]["terminal"] = true.into();
        case.write();
        let socket = case.path("console.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let bundle = case.path("");
        let said = case.must_fail(&[
            "create",
            "--bundle",
            bundle.to_str().unwrap(),
            "--console-socket",
            socket.to_str().unwrap(),
            case.id(),
        ]);
        assert!(said.contains("terminal"), "{place}: {said}");
        outside.assert_untouched();
    }
}

/// A naive runtime keeps a node that is there already, whatever device it is.
#[test]
fn a_device_node_of_the_image_does_not_replace_a_default_device() {
    if !needs(&NEEDS) {
        return;
    }
    for name in ["full", "random", "urandom", "tty", "zero"] {
        let case = with_own_dev("true");
        // The first disk of the host.
        let node = case.path("rootfs/dev").join(name);
        mknodat(
            CWD,
            &node,
            FileType::BlockDevice,
            0o666.into(),
            makedev(254, 0),
        )
        .unwrap();
        let said = refused(&case);
        assert!(
            said.contains("something else is there already"),
            "{name}: {said}"
        );
    }
}
