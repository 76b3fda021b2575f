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
    let [containers, bundles] = test_programs(["containers", "bundles"]);
    let (exit, output) = Guest::new("runtime.sh")
        .word("test_containers", containers.display())
        .word("test_bundles", bundles.display())
        .word("directory", runtime.display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    assert_eq!(output.matches("test result: ok").count(), 2, "{output}");
    for name in [
        "limits::its_cgroup_has_the_limits_and_counts",
        "limits::an_oom_kill_is_reported",
        "limits::an_oom_kill_ends_the_whole_container",
        "limits::a_fork_bomb_meets_its_limit",
        "life::children_end_with_the_first_process",
        "limits::devices_are_used_as_the_rules_say",
        "limits::a_busy_container_is_throttled_and_its_time_counted",
        "limits::memory_and_processes_are_counted_up_and_down",
        "limits::block_io_is_counted",
        "limits::a_container_with_limits_of_its_disk_is_slower_than_one_without",
        "limits::a_paused_container_uses_no_cpu",
        "limits::delete_kills_the_whole_cgroup",
        "life::events_report_stats_and_oom_kills",
        "life::list_ps_and_stats",
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
    let [bundles] = test_programs(["bundles"]);
    let (exit, output) = Guest::emulated("resources.sh")
        .word("test_bundles", bundles.display())
        .word("directory", workspace().join("oci/runtime").display())
        .word("runtime", programs().join("tucano_oci").display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    for line in [
        "test numbers::limits_are_written_to_the_kernels_files ... ok",
        "test numbers::update_changes_the_named_limits_only ... ok",
        "test limits::devices_are_used_as_the_rules_say ... ok",
        "huge pages: 4194304",
    ] {
        assert!(output.contains(line), "{line} is missing in {output}");
    }
}

/// The programs of integration tests. With the whole workspace's features, so that they are those which
/// `cargo test --workspace` has just built.
pub(crate) fn test_programs<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
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
