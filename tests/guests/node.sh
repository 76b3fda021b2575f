#!/bin/bash
# A controller, its balancer and one node in a guest without nftables' families and pressure information:
# directory=WHERE THE PROGRAMS ARE, image=ITS ARCHIVE.
set -euo pipefail
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
programs=$(word directory)
PATIENCE=120
TOKEN=only-in-this-guest

failed() {
    echo "FAILED: $*"
    cat /tmp/last /tmp/*.log
    exit 1
}

# Runs a command until it succeeds.
await() {
    for _ in $(seq "$PATIENCE"); do
        if "$@" >/tmp/last 2>&1; then return; fi
        sleep 1
    done
    failed "waited in vain for: $*"
}

tucano() { "$programs/tucano" --api http://127.0.0.1:7070 --token "$TOKEN" "$@"; }
alive() { tucano state | jq --exit-status '.alive_nodes | length == 1'; }
answers() { curl --fail --silent --show-error --max-time 30 --header "Host: hello.localhost" http://127.0.0.1:8080/; }
gone() { test -z "$(find /sys/fs/cgroup -path '*tucano*' -name 'hello-*')"; }
start_agent() {
    "$programs/tucano_agentd" --config /tmp/agent.toml 2>>/tmp/agent.log &
    agent=$!
}

ip link add dummy0 type dummy
ip address add 10.77.0.2/24 dev dummy0
ip link set dummy0 up

cat >/tmp/ctl.toml <<END
data_dir = "/var/lib/ctl"
domain = "localhost"
lease = "60s"
token = "$TOKEN"
agent_token = "$TOKEN-of-agents"
[api]
listen = ["127.0.0.1:7070"]
[balancer]
listen = ["127.0.0.1:8080"]
[[topology]]
kind = "ctl"
ip = "127.0.0.1"
[[topology]]
kind = "worker"
ip = "10.77.0.2"
name = "w1"
END
cat >/tmp/agent.toml <<END
controller = "http://127.0.0.1:7070"
token = "$TOKEN-of-agents"
data_dir = "/var/lib/agent"
ip = "10.77.0.2"
name = "w1"
END
cat >/tmp/hello.toml <<END
name = "hello"
concurrency = 2
port = 8080
memory = "64MiB"
cpus = 0.5
pids = 77
health = { http = "/healthz", timeout = "30s", grace = "120s" }
END

"$programs/tucano_ctld" --config /tmp/ctl.toml 2>/tmp/ctl.log &
start_agent
await alive
echo "logged: $(grep -c 'nftables does not work here' /tmp/agent.log)"
tucano state | jq --raw-output '.. | .notes? // empty | .[] | "note: " + .'

tucano deploy /tmp/hello.toml --image "$(word image)" >/tmp/last 2>&1 || failed "the deploy"
for _ in 1 2; do await answers; cat /tmp/last; done

for file in memory.max memory.swap.max cpu.max pids.max; do
    for cgroup in /sys/fs/cgroup/tucano/hello-*; do echo "$file: $(cat "$cgroup/$file")"; done
done
before=$(cat /sys/fs/cgroup/tucano/hello-*/cgroup.procs | sort)

# Containers and their forwarding outlive the agent, and the next one finds both.
kill -KILL "$agent"
wait "$agent" || true
await answers
start_agent
adopted() { tucano ps --json | jq --exit-status '[.. | .state? | select(. == "healthy")] | length == 2'; }
await adopted
await answers
test "$before" = "$(cat /sys/fs/cgroup/tucano/hello-*/cgroup.procs | sort)" || failed "containers were started anew"
echo "jumps: $(iptables-legacy -t nat -S | grep -c -- '-A PREROUTING .*-j tu-tucano0-ports')"

# A process reaches nothing of its node.
process=$(head -n 1 <<<"$before")
if nsenter --target "$process" --net curl --silent --max-time 10 http://10.77.0.2:7071/healthz; then
    failed "a process reaches its node"
fi

tucano rm hello >/tmp/last 2>&1 || failed "the removal"
await gone
echo "left: $(iptables-legacy-save | grep -c tu-tucano0 || true)"
echo "all is well"
