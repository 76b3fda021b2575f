//! What the runtime writes to procfs, and where it ends up.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use tucano_testkit::needs;

use crate::{
    harness::{Case, NEEDS},
    outside::{Outside, add_mount, bind},
};

/// CVE-2025-52881, CVE-2019-19921: a naive runtime writes sysctls, labels and scores by their paths inside the container, where a
/// volume lies over `/proc` whose files are links to what the attacker wants written (`/proc/sys/kernel/core_pattern` of the
/// host, say), or swallow what was meant to confine it.
#[test]
fn writes_reach_the_kernel_and_nothing_else() {
    if !needs(&NEEDS) {
        return;
    }
    let script = "cat /real/sys/net/ipv4/ip_unprivileged_port_start /real/self/oom_score_adj; exec sleep 1000";
    let mut case = Case::new(script);
    let outside = Outside::of(&case);
    let fake = case.path("fake");
    for place in [
        "self/attr",
        "self/fd",
        "thread-self/attr",
        "sys/net/ipv4",
        "1",
    ] {
        fs::create_dir_all(fake.join(place)).unwrap();
    }
    for file in [
        "self/attr/exec",
        "self/attr/keycreate",
        "self/oom_score_adj",
        "self/setgroups",
        "self/uid_map",
        "thread-self/attr/exec",
        "sys/net/ipv4/ip_unprivileged_port_start",
        "1/oom_score_adj",
    ] {
        symlink(outside.file(), fake.join(file)).unwrap();
    }
    add_mount(
        &mut case,
        json!({"destination": "/real", "type": "proc", "source": "proc"}),
    );
    add_mount(&mut case, bind(&fake, "/proc"));
    case.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    case.config["process"]["oomScoreAdj"] = 321.into();
    case.start();
    assert_eq!(case.read("out"), "77\n321\n");
    let score = case.must(&["exec", case.id(), "cat", "/real/self/oom_score_adj"]);
    assert_eq!(score, "321\n");
    outside.assert_untouched();
}
