#!/bin/sh
# Runs the container runtime's own tests: binary=THEIR PROGRAM.
set -u
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs || exit 1
cd "$(word directory)" || exit 1
TUCANO_TESTS_MUST_RUN=1 exec "$(word binary)" --test-threads=2 --color=never
