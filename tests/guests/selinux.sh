#!/bin/bash
# What SELinux's labels do to containers, by a policy of a few lines (selinux.cil).
# shellcheck source-path=SCRIPTDIR source=confined.sh
. "$(dirname "$0")/confined.sh"

file=system_u:object_r:container_file_t:s0:c0,c1
process=system_u:system_r:container_t:s0:c0,c1
labels=".process.selinuxLabel = \"$process\" | .linux.mountLabel = \"$file\""

configure true "$labels"
refused run | sed 's/^/inactive: /'

mount -t selinuxfs selinux /sys/fs/selinux
secilc -c "$(cat /sys/fs/selinux/policyvers)" -o /tmp/policy -f /dev/null \
    "$(dirname "$0")/selinux.cil"
cat /tmp/policy >/sys/fs/selinux/load
echo 1 >/sys/fs/selinux/enforce

mkdir /tmp/bundle/rootfs/place
chmod 777 /tmp/bundle/rootfs/place
chown -R 1000000:1000000 /tmp/bundle/rootfs
script="cat /proc/self/attr/current; echo; echo x >/place/file; echo x >/tmp/file && echo written
    cat /proc/self/attr/keycreate; grep -c _ses /proc/keys; grep -o 'context=.*c1' /proc/self/mountinfo; true"
tmp='.linux.maskedPaths -= ["/proc/keys"] | .mounts += [{ destination: "/tmp", type: "tmpfs", source: "tmpfs" }]'
configure "$script" "$tmp | $labels"
run >/tmp/last || failed "the container"
sed 's/^/labelled: /' /tmp/last
# Without a label of their own, its mounts are not for it.
configure "$script" "$tmp | .process.selinuxLabel = \"$process\""
run >/tmp/last || failed "without a label for its mounts"
sed 's/^/half: /' /tmp/last
configure "cat /proc/self/attr/current" '.'
echo "none: $(run)"

configure true '.process.selinuxLabel = "no:such:label:s0"'
refused run | sed 's/^/unknown: /'
configure true '.linux.mountLabel = "no:such:label:s0"'
refused run | sed 's/^/unknown mount: /'

configure "sleep 1000" "$labels"
runtime create --bundle /tmp/bundle box </dev/null >/tmp/box.log 2>&1 || failed "creation"
runtime start box
echo "queues: $(stat --format=%C "/proc/$(runtime state box | jq .pid)/root/dev/mqueue")"
ask() { runtime exec "$@" box cat /proc/self/attr/current | tr -d '\0'; }
echo "exec: $(ask)"
echo "exec --process-label: $(ask --process-label system_u:system_r:container_t:s0:c2)"
runtime delete --force box
