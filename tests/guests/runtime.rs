//! The container runtime's own tests on cgroup v2: limits, device rules, kills by the kernel, freezing, ends, statistics,
//! user namespaces.

use std::{path::PathBuf, process::Command, time::Duration};

use tucano_testkit::{needs, programs, tool};
use tucano_tests::images::workspace;

use crate::{
    emulated::EMULATED,
    guest::{GUEST, Guest},
};

/// System calls are slow in a guest.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn containers_are_limited_counted_and_ended_on_cgroup_v2() {
    if !needs(&GUEST) {
        return;
    }
    let runtime = workspace().join("oci/runtime");
    let [containers, bundles] = tests_of_the_runtime(["containers", "bundles"]);
    let (exit, output) = Guest::new("runtime.sh")
        .word("test_containers", containers.display())
        .word("test_bundles", bundles.display())
        .word("directory", runtime.display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    assert_eq!(output.matches("test result: ok").count(), 2, "{output}");
    for name in [
        "limits::its_cgroup_has_the_limits_and_counts",
        "limits::a_memory_hog_is_killed_and_said_to_be",
        "limits::a_container_without_memory_ends_as_a_whole_where_the_kernel_can",
        "limits::a_fork_bomb_meets_its_limit",
        "life::children_end_with_the_first_process",
        "limits::devices_are_used_as_the_rules_say",
        "limits::a_busy_container_is_throttled_and_its_time_counted",
        "limits::memory_and_processes_are_counted_up_and_down",
        "limits::what_is_read_and_written_is_counted",
        "limits::a_container_with_limits_of_its_disk_is_slower_than_one_without",
        "limits::what_is_paused_uses_nothing_until_it_goes_on",
        "limits::whatever_is_in_its_cgroup_ends_with_a_container",
        "life::what_it_uses_and_lacks_is_told_until_its_end",
        "life::containers_their_processes_and_what_they_use_are_listed",
    ] {
        let line = format!("test {name} ... ok");
        assert!(output.contains(&line), "{line} is missing in {output}");
    }
}

#[test]
fn containers_have_their_own_processors_and_huge_pages_on_cgroup_v2() {
    if !needs(&[&GUEST[..], &EMULATED, &[tool("jq")]].concat()) {
        return;
    }
    let [bundles] = tests_of_the_runtime(["bundles"]);
    let (exit, output) = Guest::emulated("resources.sh")
        .word("test_bundles", bundles.display())
        .word("directory", workspace().join("oci/runtime").display())
        .word("runtime", programs().join("tucano_oci").display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    for line in [
        "test numbers::numbers_of_the_specification_are_in_the_kernels_files ... ok",
        "test numbers::limits_are_changed_while_it_runs_and_the_others_stay ... ok",
        "test limits::devices_are_used_as_the_rules_say ... ok",
        "huge pages: 4194304",
    ] {
        assert!(output.contains(line), "{line} is missing in {output}");
    }
}

/// The programs of the runtime's integration tests. With the whole workspace's features, so that they are those which
/// `cargo test --workspace` has just built.
pub(crate) fn tests_of_the_runtime<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace())
        .args(["test", "--workspace", "--locked", "--no-run"])
        .args(names.map(|name| format!("--test={name}")))
        .arg("--message-format=json")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let built = String::from_utf8_lossy(&output.stdout);
    names.map(|name| {
        built
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap_or_else(|| panic!("cargo built no {name}: {errors}"))
    })
}
