#!/bin/bash
# A controller, its balancer and one node in a guest with all that Debian's kernel has: nftables, pressure information, every
# controller of cgroups.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

start_controller
start_agent
await alive
tell_notes
echo "told: $(tell_notes | wc -l)"
deploy
tell_limits
denies_devices /dev/vda 2>/tmp/last || failed "a process's cgroup may use the guest's disk"
echo "devices: $(grep -o 'Operation not permitted' /tmp/last)"

# What waits for processors shows.
under_pressure() { tucano state | jq --exit-status '[.. | .pressure? // empty | .cpu] | max > 0'; }
busy=()
for _ in 1 2 3 4; do
    (while :; do :; done) &
    busy+=($!)
done
await under_pressure
kill "${busy[@]}"
echo "pressure: $(tucano state | jq '[.. | .pressure? // empty] | length')"

# What processes used is counted.
counted() {
    tucano state | jq --exit-status '[.. | .metrics? // empty | select(.pids_limit == 77)] |
        length == 2 and all(.cpu_usage_us > 0 and .memory_current > 0 and .memory_peak >= .memory_current
            and .memory_limit == 67108864 and .pids_current >= 1)'
}
await counted
replace_agent
echo "mapped: $(nft list map ip tucano_tucano0 ports | grep -c 'elements = ')"
echo "forwarded: $(nft list table ip tucano_tucano0 | grep -c 'dnat ip to tcp dport map @ports')"

tucano rm hello >/tmp/last 2>&1 || failed "the removal"
await gone
echo "left: $(nft list ruleset | grep -c 'elements = ' || true)"
echo "all is well"
