# shellcheck shell=bash
# For scripts of guests, to be sourced: a bundle of busybox, and what is done with it. The kernel's command line:
# runtime=TUCANO_OCI.
set -euo pipefail
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

failed() {
    echo "FAILED: $*"
    cat /tmp/last /tmp/box.log 2>/dev/null
    exit 1
}

runtime() { "$(word runtime)" --root /run/containers "$@"; }

# Writes the bundle's configuration: its program is this shell script, and the filter (jq) changes the rest.
configure() {
    rm -f /tmp/bundle/config.json
    runtime spec --bundle /tmp/bundle
    jq --arg script "$1" ".process.terminal = false | .process.args = [\"sh\", \"-c\", \$script] | $2" /tmp/bundle/config.json >/tmp/config.json
    mv /tmp/config.json /tmp/bundle/config.json
}

# What the container's program writes, on both outputs: through a pipe, for a file it may not have the right to write to.
run() { runtime run --bundle /tmp/bundle box </dev/null 2>&1 | tr -d '\0'; }

# What is said of a container that cannot be had; nothing may be left of it.
refused() {
    if "$@" >/tmp/last 2>&1 </dev/null; then failed "it was not refused"; fi
    test -z "$(runtime list --quiet)" || failed "something is left"
    cat /tmp/last
}

mkdir -p /tmp/bundle/rootfs/bin
cp "$(command -v busybox)" /tmp/bundle/rootfs/bin/
for applet in sh cat echo sleep grep; do ln -s busybox "/tmp/bundle/rootfs/bin/$applet"; done
