//! Attacks on user lookup.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::refused,
};

/// CVE-2026-46680: a naive runtime lets 4294967296 wrap around to 0; or hands 4294967295 to setuid(2), where it means "no
/// change": the program then stays root.
#[test]
fn no_number_becomes_root_by_overflow() {
    if !needs(&NEEDS) {
        return;
    }
    for bad in [
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(-1),
    ] {
        for key in ["uid", "gid"] {
            let mut case = Case::new("id");
            case.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            case.config["process"]["user"][key] = bad.clone();
            refused(&case);
            assert!(case.is_gone());
        }
        let mut case = Case::new("id");
        case.config["process"]["user"] =
            json!({"uid": 1000, "gid": 1000, "additionalGids": [50, bad]});
        refused(&case);
    }
    let case = Case::new("echo up; exec sleep 1000");
    case.start();
    for bad in [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "1:4294967296",
        "1:-1",
    ] {
        case.must_fail(&["exec", &format!("--user={bad}"), case.id(), "id"]);
    }
    let gids = ["exec", "--additional-gids=4294967295", case.id(), "id"];
    case.must_fail(&gids);
    let plain = case.must(&["exec", "--user=1000:1000", case.id(), "id", "-u"]);
    assert_eq!(plain, "1000\n");
}

/// CVE-2026-47262: a naive runtime reads the image's passwd as a whole, and the host's memory is full before the container's
/// limit counts.
#[test]
fn a_giant_passwd_is_not_read() {
    if !needs(&NEEDS) {
        return;
    }
    let giant = |case: &Case| {
        let file = fs::File::create(case.path("rootfs/etc/passwd")).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let case = Case::new("true");
    giant(&case);
    let said = refused(&case);
    assert!(said.contains("/etc/passwd"), "{said}");
    let endless = Case::new("true");
    fs::remove_file(endless.path("rootfs/etc/passwd")).unwrap();
    symlink("/dev/zero", endless.path("rootfs/etc/passwd")).unwrap();
    let said = refused(&endless);
    assert!(said.contains("/etc/passwd"), "{said}");
    // A running container creates its own giant file before an exec.
    let running = Case::new("echo up; exec sleep 1000");
    running.start();
    giant(&running);
    let said = running.must_fail(&["exec", "--user=33", running.id(), "id"]);
    assert!(said.contains("/etc/passwd"), "{said}");
}

/// CVE-2022-29162: a naive runtime makes capabilities inheritable in what it executes, and a program with file capabilities
/// takes them from there.
#[test]
fn executed_programs_inherit_no_capabilities() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("cat /proc/self/status; exec sleep 1000");
    case.start();
    let plain = case.must(&["exec", case.id(), "cat", "/proc/self/status"]);
    let asked = [
        "exec",
        "--cap=CAP_NET_RAW",
        case.id(),
        "cat",
        "/proc/self/status",
    ];
    let more = case.must(&asked);
    for status in [case.read("out"), plain, more] {
        for set in ["CapInh", "CapAmb"] {
            let line = format!("{set}:\t0000000000000000\n");
            assert!(status.contains(&line), "{status}");
        }
    }
}
