#!/bin/bash
# What only a kernel with every controller limits: the runtime's own tests of it, and huge pages.
# test_bundles=THE TESTS' PROGRAM, runtime=TUCANO_OCI.
set -euo pipefail
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

test "$(nproc)" = 2
cd "$(word directory)"
export TUCANO_TESTS_MUST_RUN=1
"$(word test_bundles)" --test-threads=2 --color=never numbers:: limits::devices_are_used_as_the_rules_say

runtime() { "$(word runtime)" --root /run/containers "$@"; }
mkdir -p /tmp/bundle/rootfs/bin
cp "$(command -v busybox)" /tmp/bundle/rootfs/bin/sleep
runtime spec --bundle /tmp/bundle
jq '.process.terminal = false | .process.args = ["/bin/sleep", "1000"] | .linux.cgroupsPath = "huge"
    | .linux.resources.hugepageLimits = [{ pageSize: "2MB", limit: 4194304 }]' \
    /tmp/bundle/config.json >/tmp/config.json
mv /tmp/config.json /tmp/bundle/config.json
runtime create --bundle /tmp/bundle box </dev/null >/tmp/box.log 2>&1 || cat /tmp/box.log
echo "huge pages: $(cat "$(find /sys/fs/cgroup -path '*huge/hugetlb.2MB.max')")"
runtime delete --force box
