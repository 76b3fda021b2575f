#!/bin/sh
# A worker of a cluster in a guest with a network cable: directory=WHERE THE PROGRAMS ARE address=ITS OWN.
# Its agent's settings are on its disk.
set -eu
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

# User-mode Linux calls it vec0.
cable=$(find /sys/class/net/ -name 'eth0' -o -name 'vec0')
cable=${cable##*/}
ip address add "$(word address)/24" dev "$cable"
ip link set "$cable" up
echo "kernel: $(uname -r)"
exec "$(word directory)/tucano_agentd" --config /mnt/disk/agent.toml
