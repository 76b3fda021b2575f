//! Images that are mounted into a container of another.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tucano_oci_runtime::{launch::MountedImage, supervisor::user_namespaces_work};
use tucano_testkit::{ROOT, needs, tool};

use super::harness::{Case, program};

/// A container with an image of these layers on `/models`, each with these files.
fn case(arguments: &[&str], layers: &[&[&str]]) -> Option<Case> {
    if !needs(&[ROOT, tool("ldd")]) {
        return None;
    }
    let mut case = Case::new(arguments);
    let directory = case.directory.path().to_owned();
    let layers = layers.iter().enumerate().map(|(number, files)| {
        let layer = directory.join(format!("models-{number}"));
        for file in *files {
            let path = layer.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("of layer {number}")).unwrap();
        }
        fs::create_dir_all(&layer).unwrap();
        fs::set_permissions(&layer, fs::Permissions::from_mode(0o755)).unwrap();
        layer
    });
    case.images = vec![MountedImage {
        destination: "/models".into(),
        layers: layers.collect(),
    }];
    Some(case)
}

fn layer(case: &Case, number: usize) -> PathBuf {
    case.images[0].layers[number].clone()
}

fn whiteout(path: &Path) {
    let path = path.to_str().unwrap();
    let status = Command::new("mknod").args([path, "c", "0", "0"]).status();
    assert!(status.unwrap().success());
}

fn words(output: &str) -> Vec<&str> {
    let mut words: Vec<_> = output.split_whitespace().collect();
    words.sort_unstable();
    words
}

#[test]
fn upper_layers_of_an_image_hide_lower_ones() {
    let lower = ["kept", "changed", "removed"];
    let Some(case) = case(&["ls", "/models"], &[&lower, &["changed", "new"]]) else {
        return;
    };
    whiteout(&layer(&case, 1).join("removed"));
    assert_eq!(words(&case.run().1), ["changed", "kept", "new"]);
    let Some(case) = self::case(&["cat", "/models/changed"], &[&lower, &["changed"]]) else {
        return;
    };
    assert_eq!(case.run().1.trim(), "of layer 1");
}

#[test]
fn a_single_layer_shows_no_whiteouts() {
    let Some(case) = case(&["ls", "/models"], &[&["kept"]]) else {
        return;
    };
    // A layer may remove what only another base image has.
    whiteout(&layer(&case, 0).join("removed"));
    assert_eq!(words(&case.run().1), ["kept"]);
}

#[test]
fn nothing_can_be_written_to_an_image() {
    for arguments in [
        &["write", "/models/kept", "x"][..],
        &["write", "/models/new", "x"],
        &["move", "/tmp/made", "/models/moved"],
    ] {
        let Some(case) = case(arguments, &[&["kept"]]) else {
            return;
        };
        fs::create_dir_all(case.layer().join("tmp")).unwrap();
        let (_, output) = case.run();
        let refused = output.contains("Read-only") || output.contains("cross-device");
        assert!(refused, "{arguments:?}: {output}");
        let kept = fs::read_to_string(layer(&case, 0).join("kept")).unwrap();
        assert_eq!(kept, "of layer 0");
        assert!(!case.home().join("upper/models/new").exists());
    }
}

#[test]
fn a_missing_directory_is_made_also_below_a_read_only_root() {
    let Some(mut case) = case(&["cat", "/deep/below/kept"], &[&["kept"]]) else {
        return;
    };
    case.sandbox.read_only = true;
    case.images[0].destination = "/deep/below".into();
    assert_eq!(case.run().1.trim(), "of layer 0");
}

#[test]
fn owners_are_the_images_in_a_user_namespace() {
    let Some(mut case) = case(&["owner", "/models/kept"], &[&["kept"], &["above"]]) else {
        return;
    };
    assert!(user_namespaces_work(&program(), case.directory.path()));
    case.sandbox.user_namespace = Some(700_000);
    let kept = layer(&case, 0).join("kept");
    chown(&kept, Some(33), Some(34)).unwrap();
    assert_eq!(case.run().1.trim(), "33:34");
}

#[test]
fn a_link_at_the_path_leads_nowhere_but_into_the_root() {
    let Some(case) = case(&["cat", "/inside/kept"], &[&["kept"]]) else {
        return;
    };
    let outside = case.directory.path().join("inside");
    fs::create_dir(&outside).unwrap();
    symlink("../../../../../../inside", case.layer().join("models")).unwrap();
    assert_eq!(case.run().1.trim(), "of layer 0");
    assert!(fs::read_dir(outside).unwrap().next().is_none());
}

#[test]
fn a_link_at_the_path_does_not_lead_over_other_mounts() {
    for target in ["/proc", "/dev/shm", "/sys/fs"] {
        let Some(case) = case(&["ls", target], &[&["planted"]]) else {
            return;
        };
        symlink(target, case.layer().join("models")).unwrap();
        let output = case.run().1;
        assert!(!output.contains("planted"), "{target}: {output}");
    }
}

#[test]
fn an_image_over_a_file_is_refused() {
    let Some(case) = case(&["cat", "/models"], &[&["kept"]]) else {
        return;
    };
    fs::write(case.layer().join("models"), "a file").unwrap();
    let error = case.try_start().unwrap_err().to_string();
    assert!(
        error.contains("mounting an image on /models") && error.contains("a directory is needed"),
        "{error}"
    );
}
