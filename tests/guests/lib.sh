# shellcheck shell=bash
# For scripts of guests, to be sourced: settings of a controller, its balancer and one node, and what is done with them. The
# kernel's command line: directory=WHERE THE PROGRAMS ARE image=ITS ARCHIVE.
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

# The node's address.
# Of a name of its own: the kernel makes a dummy0 when it loads the module, unless the machine's modprobe.d says otherwise.
ip link add node0 type dummy
ip address add 10.77.0.2/24 dev node0
ip link set node0 up

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

start_controller() { "$programs/tucano_ctld" --config /tmp/ctl.toml 2>/tmp/ctl.log & }

# Its device rules hold for every member of a process's cgroup, whatever else it may do: as the guest's root, who could
# read the guest's disk.
denies_devices() {
    (
        echo 0 >"$(find /sys/fs/cgroup/tucano/ -maxdepth 1 -name 'hello-*' | head -n 1)/cgroup.procs"
        exec bash -c ': </dev/null || exit; ! : <"$1"' sh "$1"
    )
}

tell_notes() { tucano state | jq --raw-output '.. | .notes? // empty | .[] | "note: " + .'; }

deploy() {
    tucano deploy /tmp/hello.toml --image "$(word image)" >/tmp/last 2>&1 || failed "the deploy"
    for _ in 1 2; do await answers; cat /tmp/last; done
}

tell_limits() {
    for file in memory.max memory.swap.max cpu.max pids.max; do
        for cgroup in /sys/fs/cgroup/tucano/hello-*; do echo "$file: $(cat "$cgroup/$file")"; done
    done
}

processes() { cat /sys/fs/cgroup/tucano/hello-*/cgroup.procs | sort; }
healthy() { tucano ps --json | jq --exit-status '[.. | .state? | select(. == "healthy")] | length == 2'; }

# Containers and their forwarding outlive the agent, and the next one finds both.
replace_agent() {
    before=$(processes)
    kill -KILL "$agent"
    wait "$agent" || true
    await answers
    start_agent
    await healthy
    await answers
    test "$before" = "$(processes)" || failed "containers were started anew"
}
