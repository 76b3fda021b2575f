#!/bin/sh
# Begins a guest, as its init: a kernel whose root file system is the host's, read-only beneath a tmpfs.
# The kernel's command line: modules=ITS DIRECTORY begin=THIS FILE task=SCRIPT workspace=DIRECTORY, and whatever else the
# script reads there. The disk is mounted where programs keep data: overlays and id-mapped mounts need a real file system.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

argument() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

if [ "${1:-}" != inside ]; then
    mount -t proc proc /proc
    MODULES=$(argument modules)
    mount -t tmpfs -o size=75% changes /mnt
    mkdir -p /mnt/upper /mnt/work /mnt/root /mnt/modprobe/lib
    ln -s "$MODULES" /mnt/modprobe/lib/modules
    modprobe -d /mnt/modprobe overlay
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || exit 1
    begin=$(argument begin)
    cd /mnt/root || exit 1
    mount --move /proc proc
    mkdir -p lib/modules
    mount --bind "$MODULES" lib/modules
    # A process whose root is not that of its mount namespace may make no user namespace.
    mount --move . /
    exec chroot . "$begin" inside
fi

mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /mnt/disk /mnt/workspace
for disk in /dev/ubda /dev/vda; do
    if [ -b "$disk" ]; then mount "$disk" /mnt/disk; fi
done
# It may be in a directory that is about to be covered.
workspace=$(argument workspace)
mount --bind "$workspace" /mnt/workspace
for place in tmp var/lib; do
    mkdir -p "/mnt/disk/$place"
    mount --bind "/mnt/disk/$place" "/$place"
done
chmod 1777 /tmp
mkdir -p "$workspace"
mount --bind /mnt/workspace "$workspace"
ip link set lo up
# A booted system has /dev/loop-control before the module is loaded (kmod static-nodes). Kernels without the module go without.
modprobe --quiet loop || true
# What the kernel says of a process that it kills would go in between the lines of the tests.
dmesg -n 1

"$(argument task)" </dev/null
echo "guest-exit=$?"
sync
exec busybox poweroff -f
