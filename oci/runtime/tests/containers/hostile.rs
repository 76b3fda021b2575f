//! Hostile images that try to reach the host.

use std::{fs, os::unix::fs::symlink, path::Path};

use tucano_oci_runtime::supervisor;
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, host_file, program};

/// A directory of the host that an image points at, and its content.
fn outside(case: &Case) -> std::path::PathBuf {
    let place = case.directory.path().join("outside");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("kept"), "kept").unwrap();
    place
}

fn assert_untouched(place: &Path) {
    let names: Vec<_> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::read_to_string(place.join("kept")).unwrap(), "kept");
}

#[test]
fn links_in_place_of_the_runtimes_directories_are_refused() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    for name in ["proc", "dev", "sys"] {
        for target in ["outside", "../../../../../../tmp", "/etc"] {
            let case = Case::new(&["exit", "0"]);
            let outside = outside(&case);
            fs::remove_dir(case.layer().join(name)).unwrap();
            let target = match target {
                "outside" => outside.clone(),
                other => other.into(),
            };
            symlink(target, case.layer().join(name)).unwrap();
            let error = case.try_start().unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
            assert_untouched(&outside);
        }
    }
}

#[test]
fn a_file_in_place_of_a_directory_is_refused() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["exit", "0"]);
    fs::remove_dir(case.layer().join("proc")).unwrap();
    fs::write(case.layer().join("proc"), "").unwrap();
    let error = case.try_start().unwrap_err();
    assert!(
        error.to_string().contains("a directory is needed"),
        "{error}"
    );
}

#[test]
fn targets_of_mounts_and_the_working_directory_stay_inside() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["cat", "/etc/conf/hosts"]);
    let outside = outside(&case);
    symlink(&outside, case.layer().join("etc/conf")).unwrap();
    symlink(&outside, case.layer().join("work")).unwrap();
    let hosts = case.directory.path().join("hosts");
    fs::write(&hosts, "shown").unwrap();
    case.sandbox.files = vec![host_file(hosts, "/etc/conf/hosts")];
    case.sandbox.cwd = "/work/deep".into();
    // The links dangle inside, where their targets are created.
    assert_eq!(case.run().1.trim(), "shown");
    assert_untouched(&outside);
}

#[test]
fn files_that_block_or_are_endless_are_not_read() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["exit", "0"]);
    case.user = Some("web".into());
    fs::remove_file(case.layer().join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(
        &case.layer().join("etc/passwd"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let error = case.try_start().unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");

    let mut case = Case::new(&["exit", "0"]);
    case.user = Some("web".into());
    fs::remove_file(case.layer().join("etc/passwd")).unwrap();
    symlink("/dev/zero", case.layer().join("etc/passwd")).unwrap();
    assert!(case.try_start().is_err());
}

#[test]
fn device_nodes_of_an_image_open_nothing() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["cat", "/etc/disk"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        case.layer().join("etc/disk"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        rustix::fs::makedev(1, 5),
    )
    .unwrap();
    let (_, outcome) = case.run();
    assert!(outcome.contains("Permission denied"), "{outcome}");
}

/// CVE-2019-5736: who is executed by the runtime keeps a descriptor of the runtime's program, and writes to it once nobody
/// executes it any more.
#[test]
fn the_runtimes_program_cannot_be_overwritten() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait"]);
    let copy = case.directory.path().join("tucano_oci");
    // Not by this process: another test's child would have it open for writing for a moment, and it could not be executed.
    let copied = std::process::Command::new("cp")
        .arg(program())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let running = supervisor::start(&copy, &case.launch()).unwrap();
    let record = fs::read_to_string(case.home().join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let kept = fs::File::open(format!("/proc/{}/exe", record["supervisor"]["pid"])).unwrap();
    supervisor::signal(&running, 9).unwrap();
    case.wait_for_exit();
    wait_until("the supervisor's end", TIMEOUT, || {
        fs::OpenOptions::new().append(true).open(&copy).is_ok()
    });
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let error = fs::OpenOptions::new().append(true).open(again).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
}
