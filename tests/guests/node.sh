#!/bin/bash
# A controller, its balancer and one node in a guest without nftables' families and pressure information.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

start_controller
start_agent
await alive
echo "logged: $(grep -c 'nftables does not work on this node' /tmp/agent.log)"
tell_notes
deploy
tell_limits
denies_devices /dev/ubda 2>/tmp/last || failed "a process's cgroup may use the guest's disk"
echo "devices: $(grep -o 'Operation not permitted' /tmp/last)"
replace_agent
echo "jumps: $(iptables-legacy -t nat -S | grep -c -- '-A PREROUTING .*-j tu-tucano0-ports')"

echo "kept from: $(iptables-legacy -S tu-tucano0-forward | grep -c -- '-d 10.77.0.2/32 .*--dport 7071 -j DROP')"

# A process reaches nothing of its node.
process=$(processes | head -n 1)
if nsenter --target "$process" --net curl --silent --max-time 10 http://10.77.0.2:7071/healthz; then
    failed "a process reaches its node"
fi

tucano rm hello >/tmp/last 2>&1 || failed "the removal"
await gone
echo "left: $(iptables-legacy-save | grep -c tu-tucano0 || true)"
echo "all is well"
