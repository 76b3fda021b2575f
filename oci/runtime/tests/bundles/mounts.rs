//! Mounts and their options.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use tucano_testkit::{Need, ROOT, needs, tool};

use crate::harness::{Case, NEEDS};

const WITH_UNSHARE: [Need; 4] = [ROOT, tool("busybox"), tool("unshare"), tool("mount")];

fn add(case: &mut Case, mount: Value) {
    case.config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Runs the container in a mount namespace prepared by a script; `$SOURCE` is a directory of the bundle.
fn run_after(case: &Case, script: &str) -> String {
    case.write();
    fs::create_dir_all(case.path("source")).unwrap();
    let program = case.program();
    let line = format!(
        "{script}\nexec {} --root {} run --bundle {} {}",
        program.get_program().to_str().unwrap(),
        case.path("state").display(),
        case.path("").display(),
        case.id()
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", &line])
        .env("SOURCE", case.path("source"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The line of `/proc/self/mountinfo` for a mount point.
fn line<'a>(mounts: &'a str, place: &str) -> &'a str {
    mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(place))
        .unwrap_or_else(|| panic!("{place} not in {mounts}"))
}

/// The mount's own options.
fn options<'a>(mounts: &'a str, place: &str) -> Vec<&'a str> {
    let options = line(mounts, place).split(' ').nth(5).unwrap();
    options.split(',').collect()
}

#[test]
fn bind_mount_options_set_and_clear_attributes() {
    if !needs(&WITH_UNSHARE) {
        return;
    }
    let mut case = Case::new("cat /proc/self/mountinfo");
    let source = case.path("source");
    let bind = |place: &str, options: &[&str]| json!({"destination": place, "type": "bind", "source": source, "options": options});
    add(&mut case, bind("/kept", &["bind"]));
    add(
        &mut case,
        bind("/cleared", &["bind", "rw", "dev", "suid", "exec", "atime"]),
    );
    add(
        &mut case,
        bind("/later", &["bind", "suid", "nosuid", "noatime", "relatime"]),
    );
    let made = "mount -t tmpfs -o ro,nodev,nosuid,noexec,noatime x $SOURCE";
    let mounts = run_after(&case, made);
    let kept = options(&mounts, "/kept");
    assert_eq!(kept, ["ro", "nosuid", "nodev", "noexec", "noatime"]);
    assert_eq!(options(&mounts, "/cleared"), ["rw", "relatime"]);
    let later = options(&mounts, "/later");
    assert_eq!(later, ["ro", "nosuid", "nodev", "noexec", "relatime"]);
}

#[test]
fn recursive_options_apply_to_submounts() {
    if !needs(&WITH_UNSHARE) {
        return;
    }
    let mut case = Case::new("cat /proc/self/mountinfo");
    let source = case.path("source");
    for (place, option) in [("/top", "ro"), ("/all", "rro")] {
        add(
            &mut case,
            json!({"destination": place, "type": "bind", "source": source, "options": ["rbind", option]}),
        );
    }
    let made = "mount -t tmpfs x $SOURCE; mkdir $SOURCE/below; mount -t tmpfs x $SOURCE/below";
    let mounts = run_after(&case, made);
    assert_eq!(options(&mounts, "/top")[0], "ro");
    assert_eq!(options(&mounts, "/top/below")[0], "rw");
    assert_eq!(options(&mounts, "/all")[0], "ro");
    assert_eq!(options(&mounts, "/all/below")[0], "ro");
}

#[test]
fn mount_propagation_is_applied() {
    if !needs(&WITH_UNSHARE) {
        return;
    }
    let mut case = Case::new("cat /proc/self/mountinfo");
    let source = case.path("source");
    for (place, option) in [
        ("/peer", "rshared"),
        ("/slave", "slave"),
        ("/own", "private"),
        ("/none", "unbindable"),
        ("/unsaid", "rw"),
    ] {
        add(
            &mut case,
            json!({"destination": place, "type": "bind", "source": source, "options": ["rbind", option]}),
        );
    }
    let made =
        "mount -t tmpfs x $SOURCE; mount --make-shared $SOURCE; grep $SOURCE /proc/self/mountinfo";
    let mounts = run_after(&case, made);
    let group = |place: &str| line(&mounts, place).split(' ').nth(6).unwrap();
    let of_host = group(source.to_str().unwrap());
    assert!(of_host.starts_with("shared:"), "{mounts}");
    assert_eq!(group("/peer"), of_host);
    assert_eq!(group("/slave"), of_host.replace("shared", "master"));
    assert_eq!(group("/none"), "unbindable");
    for place in ["/own", "/unsaid", "/"] {
        assert_eq!(group(place), "-", "{place}");
    }
}

#[test]
fn rootfs_propagation_is_applied() {
    if !needs(&NEEDS) {
        return;
    }
    for (wanted, expected) in [
        ("shared", "shared:"),
        ("unbindable", "unbindable"),
        ("private", "-"),
    ] {
        let mut case = Case::new("cat /proc/self/mountinfo");
        case.config["linux"]["rootfsPropagation"] = wanted.into();
        let output = case.run();
        let mounts = String::from_utf8_lossy(&output.stdout).into_owned();
        let group = line(&mounts, "/").split(' ').nth(6).unwrap();
        assert!(group.starts_with(expected), "{wanted}: {mounts}");
    }
}

#[test]
fn idmapped_mounts_use_their_own_or_the_containers_mappings() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("stat -c %u:%g /own/file /container/file");
    let source = case.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1000}]);
    case.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    case.config["linux"]["uidMappings"] = map(100_000);
    case.config["linux"]["gidMappings"] = map(100_000);
    give(&case.path("rootfs"), 100_000);
    add(
        &mut case,
        json!({"destination": "/own", "type": "bind", "source": source, "options": ["bind"],
               "uidMappings": map(100_033), "gidMappings": map(100_044)}),
    );
    add(
        &mut case,
        json!({"destination": "/container", "type": "bind", "source": source, "options": ["rbind", "ridmap"]}),
    );
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "33:44\n0:0\n", "{output:?}");
}

fn give(place: &Path, id: u32) {
    std::os::unix::fs::lchown(place, Some(id), Some(id)).unwrap();
    if place.is_dir() && !place.is_symlink() {
        for entry in fs::read_dir(place).unwrap() {
            give(&entry.unwrap().path(), id);
        }
    }
}

#[test]
fn tmpcopyup_copies_the_covered_directory() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(
        "cat /data/sub/file; stat -c %a /data /data/sub /plain; echo new > /data/sub/file; cat /data/sub/file",
    );
    let data = case.path("rootfs/data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/file"), "old\n").unwrap();
    fs::create_dir(case.path("rootfs/plain")).unwrap();
    for (place, mode) in [("data", 0o750), ("data/sub", 0o700), ("plain", 0o711)] {
        use std::os::unix::fs::PermissionsExt;
        let place = case.path("rootfs").join(place);
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
    }
    let tmpfs = |place: &str, options: &[&str]| json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options});
    add(
        &mut case,
        tmpfs("/data", &["tmpcopyup", "nosuid", "size=1m"]),
    );
    add(&mut case, tmpfs("/plain", &[]));
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "old\n750\n700\n711\nnew\n", "{output:?}");
    assert_eq!(case.read("rootfs/data/sub/file"), "old\n");
}

/// As with runc, which makes them read-only last.
#[test]
fn a_read_only_mount_may_have_mounts_and_devices_below_it() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(
        "echo x > /dev/null; echo x > /dev/shm/x; echo x > /data/below/x; echo x > /dev/y; echo x > /data/y",
    );
    for mount in case.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push("ro".into());
        }
    }
    add(
        &mut case,
        json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
    );
    add(
        &mut case,
        json!({"destination": "/data/below", "type": "tmpfs", "source": "tmpfs"}),
    );
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.matches("Read-only file system").count(),
        2,
        "{output:?}"
    );
}

#[test]
fn destinations_are_paths_from_the_root_and_dangling_links_stay() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat /data/file /etc/name");
    std::fs::create_dir(case.path("source")).unwrap();
    std::fs::write(case.path("source/file"), "one\n").unwrap();
    let link = case.path("rootfs/etc/name");
    std::os::unix::fs::symlink("../run/deep/name", &link).unwrap();
    add(
        &mut case,
        json!({"destination": "data", "type": "bind", "source": "source"}),
    );
    add(
        &mut case,
        json!({"destination": "/x/../etc/name", "type": "bind", "source": "source/file"}),
    );
    let output = case.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "one\none\n",
        "{output:?}"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("level=warning") && said.contains("not absolute"),
        "{said}"
    );
    assert!(link.is_symlink() && case.path("rootfs/run/deep/name").is_file());
}
