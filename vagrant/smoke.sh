#!/bin/bash
# A look at the whole cluster: deploys a service, sees a process of it on every worker answer through the balancer, scales
# it, kills an agent, removes the service. Run it when `vagrant up` is through.
#
# ON: a program that runs a bash script as root on a machine, `ON NODE SCRIPT`, instead of `vagrant ssh`.
# TUCANO_NET: as for the Vagrantfile.
set -euo pipefail
cd "$(dirname "$0")"

BALANCER=http://${TUCANO_NET:-192.168.56}.10:8080
PATIENCE_SECONDS=600

main() {
    step "every worker is alive"
    workers=$(controller nodes '.[] | select(.condition != "ctl") | .name')
    count=$(wc -w <<<"$workers")
    [ "$count" -gt 0 ] || fail "the topology has no worker"
    await "every worker to be alive" all_alive

    step "deployed: $((2 * count)) processes"
    deploy $((2 * count))
    await "all of them to be healthy" healthy $((2 * count))

    step "every worker answers through the balancer"
    for worker in $workers; do
        await "an answer from $worker" answers "$worker"
    done

    step "scaled to $count"
    on ctl "$(tucano) scale smoke $count --no-wait"
    await "$count healthy processes, and no other" healthy "$count"

    first=$(head -n 1 <<<"$workers")
    step "the agent of $first is killed: its processes run on"
    before=$(processes)
    killed=$(agent "$first")
    on "$first" "kill -KILL $killed"
    await "a new agent on $first" has_another_agent "$first" "$killed"
    await "$first to be alive" all_alive
    await "an answer from $first" answers "$first"
    await "$count healthy processes, and no other" healthy "$count"
    after=$(processes)
    [ "$before" = "$after" ] || fail "processes were started again. Before: $before. After: $after"

    step "removed"
    on ctl "$(tucano) rm smoke --timeout ${PATIENCE_SECONDS}s"
    await "the balancer to answer 404" answers_404
    for worker in $workers; do
        await "nothing to be left on $worker" is_gone_from "$worker"
    done
    echo "all is well"
}

# The image is on the controller already: hello's.
deploy() {
    local image
    image=$(controller state '.configured_services[] | select(.name == "hello") | .image')
    [ -n "$image" ] || fail "hello is not deployed: run vagrant provision"
    on ctl "cat >/run/smoke.toml <<END && $(tucano) deploy /run/smoke.toml --no-wait && rm /run/smoke.toml
name = \"smoke\"
concurrency = $1
image = \"$image\"
port = 8080
memory = \"32MiB\"
health = { http = \"/healthz\", timeout = \"10s\", grace = \"120s\" }
END"
}

all_alive() { [ "$(controller state '.alive_nodes | length')" = "$count" ]; }

# Whether so many processes are healthy and routed to, and there is no other.
healthy() {
    local states
    states=$(smoke_processes '"\(.state) \(.routed)"')
    [ "$(wc -l <<<"$states")" = "$1" ] && [ "$(sort -u <<<"$states")" = "healthy true" ]
}

# Which there are, where, and since when.
processes() { smoke_processes '"\(.id) on \(.node) since \(.started_at), restarts: \(.restarts)"'; }

smoke_processes() { controller state '.active_services[] | select(.name == "smoke") | .processes[] | '"$1"; }

answers() {
    local answer
    answer=$(request --fail) && [[ $answer == *" node=$1"* ]] && echo "    $answer"
}

answers_404() { [ "$(request --output /dev/null --write-out '%{http_code}')" = 404 ]; }

request() { curl --silent --max-time 30 --header 'Host: smoke.localhost' "$@" "$BALANCER/"; }

agent() { on "$1" "systemctl show --property MainPID --value tucano-agent.service"; }

has_another_agent() {
    local pid
    pid=$(agent "$1")
    [ "$pid" != 0 ] && [ "$pid" != "$2" ]
}

is_gone_from() { [ -z "$(on "$1" "find /sys/fs/cgroup -type d -name 'smoke-*'")" ]; }

# What the controller says, through a filter of jq.
controller() { on ctl "$(tucano) --json $1 | jq --raw-output $(printf %q "$2")"; }

tucano() { echo "tucano --token-file /etc/tucano/token"; }

on() {
    if [ -n "${ON:-}" ]; then
        "$ON" "$@"
    else
        # ssh's standard input is not for it.
        vagrant ssh "$1" --no-tty --command "sudo bash -c $(printf %q "$2")" </dev/null
    fi
}

await() {
    local what=$1 deadline=$((SECONDS + PATIENCE_SECONDS))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "waited $PATIENCE_SECONDS seconds in vain for $what"
        sleep 1
    done
}

step() { echo "smoke.sh: $*"; }

fail() {
    echo "smoke.sh: $*" >&2
    exit 1
}

main
