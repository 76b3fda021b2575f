#!/bin/bash
# Volumes that a project quota keeps to their sizes, beside those in files: a controller, its balancer and one node in a guest.
# The kernel's command line, beside that of lib.sh: box=AN IMAGE WITH A SHELL AND chattr quotas=THE TESTS' PROGRAM.
# shellcheck disable=SC2016 # Containers' shells expand what is for them.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

place=/mnt/disk/place
mkdir -p $place
truncate -s 1G /mnt/disk/ext4
mkfs.ext4 -q -O project,quota -E quotatype=prjquota /mnt/disk/ext4
mount -o loop,prjquota /mnt/disk/ext4 $place
# Enforcement of projects' limits on a mounted file system, `on` or `off` (quotactl(2): Q_XQUOTAON, Q_XQUOTAOFF).
enforce() {
    python3 - "$1" $place <<'END'
import ctypes, os, sys
command = {"on": 0x5801, "off": 0x5802}[sys.argv[1]]
flags = ctypes.c_uint(1 << 5)
libc = ctypes.CDLL(None, use_errno=True)
place = os.open(sys.argv[2], os.O_RDONLY)
if libc.syscall(443, place, command << 8 | 2, 0, ctypes.byref(flags)):
    sys.exit(os.strerror(ctypes.get_errno()))
END
}
printf '[volumes]\npath = "%s/volumes"\n' $place >>/tmp/agent.toml

# A service with one volume of this size; a word in its environment makes a revision of its own.
configure() {
    cat >"/tmp/$1.toml" <<END
name = "$1"
concurrency = 1
port = 8080
args = ["httpd", "-f", "-p", "8080", "-h", "/data"]
memory = "64MiB"
drain = "0s"
stop_timeout = "1s"
health = { timeout = "30s", grace = "120s" }
env = { WORD = "${3:-}" }
[[volume]]
name = "data"
path = "/data"
size = "$2"
END
}
box() { tucano deploy "/tmp/$1.toml" --image "$(word box)" >/tmp/last 2>&1 || failed "the deploy of $1"; }
# Runs a script in the container of a service.
in_box() { tucano exec "$1" -- /bin/busybox sh -c "$2"; }
runs() { tucano volume ls | grep -q "^$1/data/1 .* in use "; }
volumes() { tucano volume ls | sed -n 's/^\([a-z]*\)\/data\/1 .*\(loop file\|project quota\).*/\1: \2/p'; }

start_controller
enforce off
start_agent
await alive
configure file 64MiB
box file
await runs file
# New volumes have a quota as soon as there is one; the other stays what it is.
enforce on
configure quota 64MiB
box quota
await runs quota
tucano deploy /tmp/hello.toml --image "$(word image)" >/tmp/last 2>&1 || failed "the deploy of hello"
await answers
volumes

echo "quota's size: $(in_box quota 'busybox df -k /data | busybox tail -n 1' | awk '{ print $2 }')"
echo "options: $(in_box quota 'busybox grep " /data " /proc/mounts' | grep -o 'nosuid,nodev' | head -n 1)"

# A process cannot leave its quota, whatever it does to its own files.
escape='busybox touch /data/own && for try in "-p 0 /data/own" "-p 7 /data" "-P /data" "-p 0 -P /data"; do
    if chattr $try; then echo "escaped by $try"; else echo refused; fi; done 2>&1'
echo "escapes: $(in_box quota "$escape" | grep -c '^refused$')"
in_box quota "$escape" >/tmp/last
if grep escaped /tmp/last; then failed "a process leaves its quota"; fi

# One file is open and written to all the time: until the volume is full, and on once it has grown.
writer='exec 3>/data/open; written=0
while [ $written -lt 100 ]; do
    if busybox dd if=/dev/zero bs=1M count=1 >&3; then written=$((written + 1)); else echo full; busybox sleep 1; fi
done
echo "wrote $written"'
writers=()
for name in file quota; do
    in_box $name "$writer" >/tmp/$name.written 2>/tmp/$name.errors &
    writers+=($!)
done
for name in file quota; do await grep -q full /tmp/$name.written; done
echo "file is full: $(grep -o 'No space left on device' /tmp/file.errors | head -n 1)"
echo "quota is full: $(grep -oE 'No space left on device|Disk quota exceeded' /tmp/quota.errors | head -n 1)"
await answers
echo "beside them: $(grep -c 'hello from service=hello' /tmp/last)"
# The quota of one is no concern of the other, nor of the disk.
dd if=/dev/zero of=$place/other bs=1M count=32 2>/dev/null
echo "beside it: $(stat -c %s $place/other)"
rm $place/other

ids() { tucano volume ls --json | jq -r '.[].process' | sort; }
processes=$(ids)
for name in file quota; do
    configure $name 128MiB
    box $name
done
for name in file quota; do await grep -q 'wrote 100' /tmp/$name.written; done
for writer in "${writers[@]}"; do wait "$writer"; done
test "$processes" = "$(ids)" || failed "processes were replaced"
echo "same processes: $(wc -l <<<"$processes")"
echo "grown: $(tucano volume ls | grep -c '/128.0 MiB')"

# Inodes are limited as well, for the disk has only so many.
in_box quota 'busybox rm /data/open; n=0; while true >/data/$n; do n=$((n + 1)); done; busybox rm -r /data/*; echo "$n files"' >/tmp/last 2>&1 || true
echo "inodes: $(grep -cE 'No space left on device|Disk quota exceeded' /tmp/last)"

# A full volume is no obstacle to its next process, and a killed agent's volumes are found.
in_box quota 'busybox dd if=/dev/zero of=/data/full bs=1M count=200; echo kept >/data/kept; busybox rm /data/full; echo kept >/data/kept
    busybox dd if=/dev/zero of=/data/full bs=1M count=200' >/tmp/last 2>&1 || true
kill -KILL "$agent"
wait "$agent" || true
start_agent
await runs quota
configure quota 128MiB other
box quota
kept() { in_box quota 'echo $WORD; busybox cat /data/kept' | tr '\n' ' ' | grep '^other kept $'; }
await kept
volumes

# A quota that is switched off is no size at all.
enforce off
unenforced() { tucano volume ls | grep '^quota/data/1 .* missing .*does not enforce project quotas now'; }
await unenforced
echo "unenforced: $(grep -o 'mount it with the option prjquota' /tmp/last)"
enforce on
await runs quota

free() { df --output=avail -k $place | tail -n 1; }
before=$(free)
tucano rm quota --volumes --yes >/tmp/last 2>&1 || failed "the removal"
freed() { test $(($(free) - before)) -gt 120000 && test ! -e $place/volumes/quota.data.1.removed; }
await freed
echo "left: $(find $place/volumes -name 'quota*' | wc -l)"
if grep -q 'cannot remove' /tmp/agent.log; then failed "a removal"; fi

# What needs no cluster, on both file systems.
kill -KILL "$agent"
wait "$agent" || true
truncate -s 400M /mnt/disk/xfs
mkfs.xfs -q /mnt/disk/xfs
mkdir -p /mnt/disk/on-xfs
mount -o loop,prjquota /mnt/disk/xfs /mnt/disk/on-xfs
for file_system in $place /mnt/disk/on-xfs; do
    TUCANO_QUOTA_PLACE=$file_system "$(word quotas)" --ignored --test-threads=1 --color=never
done
echo "all is well"
