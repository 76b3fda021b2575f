//! The container runtime's own tests on cgroup v2: limits, kills by the kernel, ends, statistics, user namespaces.

use std::{path::PathBuf, process::Command, time::Duration};

use tucano_testkit::needs;
use tucano_tests::images::workspace;

use crate::guest::{GUEST, Guest};

/// System calls are slow in a guest.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn containers_are_limited_counted_and_ended_on_cgroup_v2() {
    if !needs(&GUEST) {
        return;
    }
    let runtime = workspace().join("oci/runtime");
    let (exit, output) = Guest::new("runtime.sh")
        .word("binary", tests_of_the_runtime().display())
        .word("directory", runtime.display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    assert!(output.contains("test result: ok"), "{output}");
    for name in [
        "limits::its_cgroup_has_the_limits_and_counts",
        "limits::a_memory_hog_is_killed_and_said_to_be",
        "limits::a_fork_bomb_meets_its_limit",
        "life::children_end_with_the_first_process",
    ] {
        let line = format!("test {name} ... ok");
        assert!(output.contains(&line), "{line} is missing in {output}");
    }
}

/// The program of the runtime's integration tests. With the whole workspace's features, so that it is the one which
/// `cargo test --workspace` has just built.
fn tests_of_the_runtime() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace())
        .args(["test", "--workspace", "--locked", "--no-run"])
        .args(["--test", "containers", "--message-format=json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "containers")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no tests: {errors}"))
}
