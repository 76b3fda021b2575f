#!/bin/bash
# systemd.sh STEP: containers of the systemd cgroup driver, on a machine. RUNTIME=TUCANO_OCI BUSYBOX=A STATIC ONE.
set -euo pipefail
CGROUPS=/sys/fs/cgroup
BUNDLES=/srv/bundles

runtime() { "$RUNTIME" --root /run/boxes --systemd-cgroup "$@"; }
show() { systemctl show --property="$2" "$1" | sort; }
is_gone() { test "$(systemctl show --property=LoadState --value "$1")" = not-found; }

await() {
    for _ in $(seq 300); do
        if "$@"; then return; fi
        sleep 0.2
    done
    echo "waited in vain for: $*"
    exit 1
}

# bundle NAME FILTER: one that runs a shell script, changed by jq's FILTER.
bundle() {
    local place=$BUNDLES/$1
    mkdir -p "$place/rootfs/bin"
    cp "$BUSYBOX" "$place/rootfs/bin/busybox"
    for applet in sh sleep cat echo grep; do ln -sf busybox "$place/rootfs/bin/$applet"; done
    rm -f "$place/config.json"
    runtime spec --bundle "$place"
    jq ".process.terminal = false | $2" "$place/config.json" >"$place/new.json"
    mv "$place/new.json" "$place/config.json"
}

# create NAME: and starts it.
create() {
    runtime create --bundle "$BUNDLES/$1" --pid-file "/run/$1.pid" "$1" </dev/null >"/run/$1.out" 2>&1 || {
        cat "/run/$1.out"
        return 1
    }
    runtime start "$1"
}

step_life() {
    bundle box '.linux.cgroupsPath = "a-b.slice:oci:box" | .process.args = ["sh", "-c", "cat /proc/self/cgroup; sleep 1000"]
        | .linux.devices = [{ path: "/dev/box", type: "c", major: 1, minor: 11 }]
        | .linux.resources = { memory: { limit: 67108864, swap: 67108864 }, pids: { limit: 50 },
            cpu: { quota: 50000, period: 100000, shares: 512 } }'
    create box
    await test -s /run/box.out
    echo "inside: $(cat /run/box.out)"
    echo "outside: $(cat "/proc/$(cat /run/box.pid)/cgroup")"
    show oci-box.scope ActiveState,CPUQuotaPerSecUSec,CPUWeight,Delegate,Description,MemoryMax,Slice,TasksMax
    own=$CGROUPS/a.slice/a-b.slice/oci-box.scope/container
    echo "limits: $(cat "$own/memory.max" "$own/pids.max" "$own/cpu.max" | xargs)"

    # systemd writes the attributes of its own cgroups anew, and leaves what is below its scope.
    systemctl daemon-reload
    echo "limits: $(cat "$own/memory.max" "$own/pids.max" "$own/cpu.max" | xargs)"
    echo "devices: $(runtime exec box sh -c 'cat /dev/null && cat /dev/box' 2>&1)"
    echo "exec: $(runtime exec box cat /proc/self/cgroup)"
    echo "listed: $(runtime ps --format json box | jq "index($(cat /run/box.pid))")"

    runtime update --memory 100663296 --memory-swap 100663296 --pids-limit 30 box
    show oci-box.scope MemoryMax,TasksMax
    cat "$own/memory.max" "$own/pids.max" | xargs
    # Limits that the kernel refuses stay as they were, in the scope too.
    echo '{"unified": {"memory.nothing": "1"}, "pids": {"limit": 40}}' |
        runtime update --resources - box && echo "a file that is not there was written"
    show oci-box.scope TasksMax
    echo "stats: $(runtime events --stats box | jq -c '[.type, .data.pids.limit, .data.memory.usage.limit]')"
    runtime pause box
    echo "paused: $(runtime state box | jq -r .status)"
    runtime resume box

    runtime kill box KILL
    await sh -c "$RUNTIME --root /run/boxes state box | grep stopped >/dev/null"
    runtime delete box
    await is_gone oci-box.scope
    echo "left: $(find $CGROUPS -name '*oci-box*' | wc -l), failed: $(systemctl --failed --quiet --no-legend | wc -l)"
}

step_ends() {
    # shellcheck disable=SC2016 # The container's shell expands it.
    bundle hog '.linux.cgroupsPath = "system.slice:oci:hog" | .linux.resources = { memory: { limit: 16777216, swap: 16777216 } }
        | .process.args = ["sh", "-c", "x=1234567890123456; while :; do x=$x$x; done"]'
    code=0
    runtime run --bundle "$BUNDLES/hog" hog </dev/null >/dev/null 2>&1 || code=$?
    await is_gone oci-hog.scope
    echo "hog: $code, failed: $(systemctl --failed --quiet --no-legend | wc -l)"

    # Forced, and without a path of its own.
    bundle plain 'del(.linux.cgroupsPath) | .process.args = ["sleep", "1000"]'
    create plain
    echo "plain: $(cat "/proc/$(cat /run/plain.pid)/cgroup")"
    runtime delete --force plain
    await is_gone tucano_oci-plain.scope
    # systemd ends it: the container has ended then.
    create plain
    systemctl stop tucano_oci-plain.scope
    echo "stopped: $(runtime state plain | jq -r .status)"
    runtime delete plain
    echo "boxes: $(runtime list --quiet | wc -l)"
}

step_refused() {
    bundle bad '.linux.cgroupsPath = "/a/b" | .process.args = ["sleep", "1000"]'
    runtime run --bundle "$BUNDLES/bad" bad </dev/null 2>&1 || true
    bundle bad '.linux.cgroupsPath = "system.slice:oci:bad" | .process.args = ["/no/such/program"]'
    runtime run --bundle "$BUNDLES/bad" bad </dev/null >/dev/null 2>&1 || echo "no program: refused"
    await is_gone oci-bad.scope

    systemd-run --quiet --scope --unit=oci-taken.scope sleep 1000 </dev/null >/dev/null 2>&1 &
    await systemctl --quiet is-active oci-taken.scope
    bundle taken '.linux.cgroupsPath = "system.slice:oci:taken" | .process.args = ["sleep", "1000"]'
    runtime run --bundle "$BUNDLES/taken" taken </dev/null 2>&1 || true
    echo "taken: $(systemctl is-active oci-taken.scope), $(wc -l <$CGROUPS/system.slice/oci-taken.scope/cgroup.procs)"
    systemctl stop oci-taken.scope
    echo "boxes: $(runtime list --quiet | wc -l)"
}

# Where systemd's own socket is out of reach, the system bus is not.
step_bus() {
    bundle bus '.linux.cgroupsPath = "system.slice:oci:bus" | .process.args = ["sleep", "1000"]'
    systemctl start dbus.socket
    mount --bind /dev/null /run/systemd/private
    create bus
    echo "by the bus: $(cat "/proc/$(cat /run/bus.pid)/cgroup")"
    runtime update --pids-limit 33 bus
    runtime delete --force bus
    umount /run/systemd/private
    await is_gone oci-bus.scope
}

# On cgroup v1 each controller has a hierarchy.
step_hybrid() {
    bundle old '.linux.cgroupsPath = "a-b.slice:oci:old" | .process.args = ["sleep", "1000"]
        | .linux.devices = [{ path: "/dev/box", type: "c", major: 1, minor: 11 }]
        | .linux.resources = { memory: { limit: 67108864 }, pids: { limit: 50 }, cpu: { quota: 50000, period: 100000 } }'
    create old
    local below=a.slice/a-b.slice/oci-old.scope/container
    limits() {
        (cd $CGROUPS && cat memory/$below/memory.limit_in_bytes pids/$below/pids.max cpu/$below/cpu.cfs_quota_us | xargs)
    }
    echo "in: $(grep -c ":/$below\$" "/proc/$(cat /run/old.pid)/cgroup") hierarchies"
    show oci-old.scope CPUQuotaPerSecUSec,MemoryLimit,TasksMax
    echo "limits: $(limits)"
    systemctl daemon-reload
    echo "limits: $(limits)"
    echo "devices: $(runtime exec old sh -c 'cat /dev/null && cat /dev/box' 2>&1)"
    # Less than before, and then more: neither is less than what is below it at any moment.
    runtime update --cpu-quota 20000 old
    echo "less: $(limits), $(cat $CGROUPS/cpu/${below%/*}/cpu.cfs_quota_us)"
    runtime update --cpu-quota 80000 old
    echo "more: $(limits), $(cat $CGROUPS/cpu/${below%/*}/cpu.cfs_quota_us)"
    runtime delete --force old
    await is_gone oci-old.scope
    echo "left: $(find $CGROUPS -name '*oci-old*' | wc -l), failed: $(systemctl --failed --quiet --no-legend | grep -c oci)"
}

"step_$1"
