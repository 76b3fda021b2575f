#!/bin/bash
# packages.sh STEP ARGUMENTS…: the life of the Debian packages, on one machine with controller and agent.
set -eEuo pipefail
# What fails without a word of its own is named, too.
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND" >&2' ERR
PATIENCE=300
IP=$(ip -oneline -4 address show dev vec0 | sed -E 's/.* inet ([0-9.]+).*/\1/')
SYSTEMD=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\) .*/\1/p')
UNITS="tucano-ctl tucano-balancer tucano-agent tucano-processes"

failed() {
    echo "FAILED: $*"
    systemctl --no-pager --full status 'tucano-*' || true
    journalctl --no-pager --lines=60 --unit='tucano-*' || true
    exit 1
}

# Runs a command until it succeeds.
await() {
    for n in $(seq "$PATIENCE"); do
        if "$@" >/tmp/last 2>&1; then return; fi
        # Who runs this takes silence for its end.
        if [ $((n % 30)) = 0 ]; then echo "waiting for: $*"; fi
        sleep 1
    done
    cat /tmp/last
    failed "waited in vain for: $*"
}

api() {
    local path=$1
    shift
    curl --fail --silent --show-error --max-time 60 --header "Authorization: Bearer $(cat /etc/tucano/token)" "$@" \
        "http://127.0.0.1:7070$path"
}
tucano() { command tucano --token-file /etc/tucano/token "$@"; }
pid_of() { systemctl show --property=MainPID --value "$1"; }
is_another() { test "$(pid_of "$1")" != "$2" && test "$(pid_of "$1")" != 0 && systemctl --quiet is-active "$1"; }
answers() { curl --fail --silent --show-error --max-time 60 --header "Host: hello.localhost" "http://$IP:8080/"; }
alive() { test "$(tucano state | jq '.alive_nodes | length')" = 1; }
systemd_knows() { systemctl show --property=StatusText tucano-ctl | grep '=1 of'; }
healthy() { test "$(tucano state | jq '[.. | .state? | select(. == "healthy")] | length')" = 2; }
processes() {
    find /sys/fs/cgroup/system.slice/tucano-processes.service -path '*/hello-*' -name cgroup.procs -exec cat {} + | sort
}

step_install() {
    dpkg --install "$@"
    for unit in $UNITS; do
        systemctl --quiet is-active "$unit" || failed "$unit does not run"
        systemctl --quiet is-enabled "$unit" || failed "$unit is not enabled"
    done
    echo "elsewhere than on loopback: $(ss --no-header --listening --tcp --numeric | grep -E ':(7070|7071|8080) ' | grep -vc 127.0.0.1 || true)"
    stat --format='%n %U:%G %a' /etc/tucano/token /etc/tucano/agent-token /etc/tucano/ca.pem
    echo "secrets: $(cat /etc/tucano/token /etc/tucano/agent-token | wc -c) bytes, $(sort -u /etc/tucano/*token | wc -l) lines"
    echo "users: $(for unit in ctl balancer agent; do stat --format=%U "/proc/$(pid_of tucano-$unit)"; done | xargs)"
    echo "capabilities: $(for unit in ctl balancer; do sed -n 's/^CapBnd:\s*//p' "/proc/$(pid_of tucano-$unit)/status"; done | xargs)"
    tucano services
}

balancer_listens_on() {
    mkdir -p /etc/systemd/system/tucano-balancer.socket.d
    printf '[Socket]\nListenStream=\nListenStream=%s:8080\n' "$1" >/etc/systemd/system/tucano-balancer.socket.d/listen.conf
    systemctl daemon-reload
    systemctl stop tucano-balancer
    systemctl restart tucano-balancer.socket tucano-balancer
}

step_configure() {
    cat >>/etc/tucano/ctl.toml <<END
# Written by the sysadmin.
[[topology]]
kind = "worker"
ip = "$IP"
name = "w1"
END
    sed -i 's/^#lease = .*/lease = "60s"/' /etc/tucano/ctl.toml
    sed -i "s/^listen = .*/listen = \"0.0.0.0:7071\"/; s/^#ip = .*/ip = \"$IP\"/" /etc/tucano/agent.toml
    systemctl restart tucano-agent
    # What cannot be read changes nothing.
    cp /etc/tucano/ctl.toml /tmp/ctl.toml
    echo "what = 1" >>/etc/tucano/ctl.toml
    if systemctl reload tucano-ctl; then failed "a wrong configuration was taken"; fi
    cp /tmp/ctl.toml /etc/tucano/ctl.toml
    systemctl reload tucano-ctl
    # As in a boot, where sockets come before the network.
    balancer_listens_on 192.0.2.1
    ip address add 192.0.2.1/32 dev lo
    echo "on an address that came later: $(curl --silent --show-error --output /dev/null --write-out '%{http_code}' http://192.0.2.1:8080/)"
    ip address del 192.0.2.1/32 dev lo
    for unit in ctl agent; do
        mkdir -p "/run/systemd/system/tucano-$unit.service.d"
        printf '[Service]\nWatchdogSec=20\nTimeoutAbortSec=1\n' >"/run/systemd/system/tucano-$unit.service.d/watchdog.conf"
    done
    balancer_listens_on "$IP"
    # Both by the network, as on machines of their own.
    sed -i "s/^listen = .*/listen = [\"127.0.0.1:7070\", \"$IP:7070\"]/" /etc/tucano/ctl.toml
    sed -i "s|^controller = .*|controller = \"https://$IP:7070\"|" /etc/tucano/agent.toml
    systemctl restart tucano-ctl tucano-agent
    await alive
    await systemd_knows
    systemctl show --property=StatusText tucano-ctl
    for place in "$IP:7070" "$IP:7071"; do
        echo "$place: $(curl --cacert /etc/tucano/ca.pem --silent --show-error "https://$place/healthz")"
        echo "$place: $(curl --silent --output /dev/null --write-out '%{http_code}' "http://$place/healthz")"
    done | sed "s/^$IP/IP/"
    command tucano --api "https://$IP:7070" --token-file /etc/tucano/token nodes
}

step_deploy() {
    cat >/tmp/hello.toml <<END
name = "hello"
concurrency = 2
port = 8080
memory = "64MiB"
health = { http = "/healthz", timeout = "30s", grace = "300s" }
END
    tucano deploy /tmp/hello.toml --image /workspace/target/images/hello.tar --timeout 10m 2>&1 || failed "the deploy"
    await answers
    processes >/tmp/processes
    echo "processes: $(wc -l </tmp/processes)"
    echo "room for connections: $(($(cat /proc/sys/net/netfilter/nf_conntrack_max) >= 131072))"
    echo "program: $(wc -l </sys/fs/cgroup/system.slice/tucano-processes.service/agent.scope/cgroup.procs)"
    # The same program again, whose port is taken, with a terminal and without.
    for terminal in -t -T; do tucano exec "$terminal" hello -- /hello </dev/null 2>&1 || true; done >/tmp/exec
    echo "exec: $(grep -c 'in use' /tmp/exec)"
}

same_processes() { cmp /tmp/processes <(processes) || failed "the processes are others"; }

# Who holds the processes' cgroup does not matter, nor how it ends. systemd before 254 can start no other while there are
# processes, and gives up after some tries; then there is none that could end again.
holder_ends() {
    local pid
    pid=$(pid_of tucano-processes)
    if [ "$pid" = 0 ]; then return; fi
    kill -s "$1" "$pid"
    if [ "$SYSTEMD" -ge 254 ]; then
        await is_another tucano-processes "$pid"
    else
        await systemctl --quiet is-failed tucano-processes
    fi
}

step_kill() {
    for unit in tucano-agent tucano-ctl tucano-balancer; do
        local pid
        pid=$(pid_of "$unit")
        kill -KILL "$pid"
        await is_another "$unit" "$pid"
        await answers
    done
    for signal in TERM KILL; do
        holder_ends "$signal"
        same_processes
    done
    await healthy
    echo "restarts: $(for unit in ctl balancer agent; do systemctl show --property=NRestarts --value "tucano-$unit"; done | xargs)"
    tell_failed
}

tell_failed() { echo "failed units: $(systemctl --failed --quiet --no-legend | wc -l)"; }

# A program that stands still is restarted.
step_watchdog() {
    for unit in tucano-agent tucano-ctl; do
        local pid
        pid=$(pid_of "$unit")
        kill -STOP "$pid"
        await is_another "$unit" "$pid"
        echo "$unit: $(journalctl --unit="$unit" --grep='Watchdog timeout' --output=cat | wc -l) timeout"
    done
    rm -r /run/systemd/system/tucano-*.service.d
    systemctl daemon-reload
    await alive
    await healthy
    same_processes
}

# Changes the service's hosts again and again, and notes each change that was acknowledged.
change() {
    local n=0
    until [ -e /tmp/enough ]; do
        n=$((n + 1))
        if api /v1/services/hello --request PATCH --header 'Content-Type: application/json' \
            --data "{\"hosts\": [\"n$n.test\"]}" >/dev/null 2>&1; then
            echo "$n" >>/tmp/acknowledged
        fi
    done
}

shown() { api /v1/services/hello >/tmp/shown; }

# Everything acknowledged is there; the last change that was not may be.
nothing_lost() {
    local last now
    last=$(tail -n 1 /tmp/acknowledged)
    await shown
    now=$(jq --raw-output '.. | .hosts? // empty | .[]' /tmp/shown | sed -n '0,/^n/s/^n\([0-9]*\)\.test$/\1/p')
    echo "acknowledged at least one: $((last > 0)); lost: $((now < last))"
}

step_upgrade() {
    local agent ctl balancer socket
    agent=$(pid_of tucano-agent) ctl=$(pid_of tucano-ctl) balancer=$(pid_of tucano-balancer)
    socket=$(stat --format=%i /sys/fs/cgroup/system.slice/tucano-processes.service)
    rm -f /tmp/enough /tmp/acknowledged
    change &
    await test -s /tmp/acknowledged
    dpkg --install --force-confdef --force-confold "$@" 2>&1 || failed "the upgrade"
    await is_another tucano-agent "$agent"
    await is_another tucano-ctl "$ctl"
    await is_another tucano-balancer "$balancer"
    await answers
    touch /tmp/enough
    wait
    await alive
    await healthy
    same_processes
    nothing_lost
    echo "versions: $(dpkg-query --show --showformat='${Version}\n' 'tucano-*' | sort -u | xargs)"
    grep --quiet 'Written by the sysadmin' /etc/tucano/ctl.toml || failed "what was written is gone"
    echo "new configuration beside it: $(find /etc/tucano -name "*.dpkg-dist" | wc -l)"
    test "$socket" = "$(stat --format=%i /sys/fs/cgroup/system.slice/tucano-processes.service)" || failed "the processes' unit was restarted"
}

# After a shutdown in systemd's order, and a boot.
step_booted() {
    await alive
    await answers
    echo "last words: $(journalctl --boot=-1 --unit=tucano-processes --output=cat | tail -n 3 | grep -o 'Deactivated successfully')"
    tell_failed
}

# A layer as it is where the kernel mounts them: this one has nothing to do so.
mount_layer() {
    local place=/var/lib/tucano/agent/layers/0123.mnt
    mkdir "$place"
    mount -t tmpfs none "$place"
    touch "$place/file"
    mount -o remount,ro "$place"
}

# How many of the processes whose numbers are read still run.
running() {
    local count=0 pid
    while read -r pid; do
        if [ -d "/proc/$pid" ]; then count=$((count + 1)); fi
    done
    echo "$count"
}

step_remove() {
    mount_layer
    dpkg --remove tucano-cli tucano-agent tucano-ctl
    echo "units: $(systemctl list-units --no-legend 'tucano-*' | wc -l)"
    echo "mounts: $(grep -c /var/lib/tucano /proc/self/mountinfo || true)"
    echo "processes: $(running </tmp/processes)"
    echo "kept: $(find /etc/tucano/ctl.toml /etc/tucano/token /var/lib/tucano/ctl /var/lib/tucano/agent -maxdepth 0 | wc -l)"
}

# What was kept is taken up again.
step_return() {
    dpkg --install --force-confdef --force-confold "$@"
    await alive
    await answers
    nothing_lost
}

step_purge() {
    dpkg --purge tucano-cli tucano-agent tucano-ctl
    rm -r /etc/systemd/system/tucano-balancer.socket.d
    echo "left: $(find / -xdev -iname '*tucano*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/tmp/*' \
        -not -path '/var/log/*' -not -path '/workspace/*' -printf '%p ')"
    echo "users: $(getent passwd tucano | wc -l)"
}

step=$1
shift
"step_$step" "$@"
