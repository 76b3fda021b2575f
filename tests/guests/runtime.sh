#!/bin/sh
# Runs the container runtime's own tests: test_containers=ITS PROGRAM FOR THE AGENT, test_bundles=THAT FOR RUNC'S COMMAND LINE.
set -u
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs || exit 1
cd "$(word directory)" || exit 1
export TUCANO_TESTS_MUST_RUN=1
"$(word test_containers)" --test-threads=2 --color=never || exit
exec "$(word test_bundles)" --test-threads=2 --color=never limits:: \
    life::events_report_stats_and_oom_kills life::list_ps_and_stats
