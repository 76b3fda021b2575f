#!/bin/bash
# What AppArmor's profiles do to containers; with test_bundles=THE RUNTIME'S TESTS BY RUNC'S COMMAND LINE, of which one has Docker
# give containers its profile.
# shellcheck source-path=SCRIPTDIR source=confined.sh
. "$(dirname "$0")/confined.sh"

mount -t securityfs security /sys/kernel/security
test "$(cat /sys/module/apparmor/parameters/enabled)" = Y || failed "AppArmor is not active"
apparmor_parser --replace --skip-cache <<'END'
profile cell flags=(attach_disconnected,mediate_deleted) {
    file, network, capability, mount, umount, ptrace, signal, unix,
    deny /**/secret w,
}
profile den flags=(attach_disconnected,mediate_deleted) {
    file, network, capability, mount, umount, ptrace, signal, unix,
}
END
mkdir /tmp/bundle/rootfs/place
chmod 777 /tmp/bundle/rootfs/place
chown -R 1000000:1000000 /tmp/bundle/rootfs

current=/proc/self/attr/current
script="cat $current; echo x >/place/secret; echo x >/place/open && echo written"
# As the default sandbox is: a user namespace, no capabilities, no_new_privs, a filter.
mapped='.linux.namespaces += [{ type: "user" }]
    | .linux.uidMappings = [{ containerID: 0, hostID: 1000000, size: 65536 }] | .linux.gidMappings = .linux.uidMappings'
configure "$script" "$mapped | .process.apparmorProfile = \"cell\""
run >/tmp/last || failed "the sandbox"
sed 's/^/sandbox: /' /tmp/last
# As Docker's are: capabilities, and no no_new_privs.
as_docker='.process.noNewPrivileges = false | .process.capabilities = { bounding: ["CAP_CHOWN", "CAP_DAC_OVERRIDE"] }
    | .process.capabilities |= (.permitted = .bounding | .effective = .bounding)'
configure "$script" "$as_docker | .process.apparmorProfile = \"cell\""
run >/tmp/last || failed "without no_new_privs"
sed 's/^/plain: /' /tmp/last
configure "cat $current" '.process.apparmorProfile = "unconfined"'
echo "unconfined: $(run)"
configure "cat $current" '.'
echo "none: $(run)"

configure true '.process.apparmorProfile = "no-such-profile"'
refused run | sed 's/^/unknown: /'

# What startContainer hooks run comes from the container, and is under its profile.
configure "cat /place/hook" '.process.apparmorProfile = "cell"
    | .hooks.startContainer = [{ path: "/bin/sh", args: ["sh", "-c", "cat /proc/self/attr/current >/place/hook"] }]'
echo "hook: $(run)"

# It reaches the kernel even where the container's /proc is forged (CVE-2025-52881).
fake=/tmp/fake
mkdir -p $fake/self/attr/apparmor $fake/thread-self/attr/apparmor
echo untouched >/tmp/outside
for place in self/attr thread-self/attr self/attr/apparmor thread-self/attr/apparmor; do ln -s /tmp/outside $fake/$place/exec; done
configure "cat /real/self/attr/current; sleep 1000" '.process.apparmorProfile = "cell"
    | .mounts += [{ destination: "/real", type: "proc", source: "proc" }]
    | .mounts |= map(if .destination == "/proc"
        then { destination: "/proc", type: "none", source: "/tmp/fake", options: ["rbind"] } else . end)'
runtime create --bundle /tmp/bundle box </dev/null >/tmp/box.log 2>&1 || failed "creation"
runtime start box
for _ in $(seq 100); do
    if [ -s /tmp/box.log ]; then break; fi
    sleep 0.1
done
echo "hostile: $(cat /tmp/box.log)"
ask() { runtime exec "$@" box cat /real/self/attr/current; }
echo "exec: $(ask)"
echo "exec --apparmor: $(ask --apparmor den)"
jq '.process | .args = ["cat", "/real/self/attr/current"] | del(.apparmorProfile)' /tmp/bundle/config.json >/tmp/process.json
echo "exec --process: $(runtime exec --process /tmp/process.json box)"
if ask --apparmor no-such-profile >/tmp/last 2>&1; then failed "exec with a profile that there is not"; fi
sed 's/^/exec unknown: /' /tmp/last
echo "outside: $(cat /tmp/outside)"
runtime delete --force box

cd "$(word directory)" || exit 1
export TUCANO_TESTS_MUST_RUN=1
"$(word test_bundles)" --test-threads=1 --color=never --ignored docker::
