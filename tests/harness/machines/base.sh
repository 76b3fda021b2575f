#!/bin/sh
# base.sh DISK FILES SUITE: makes the disk that every machine begins with, from packages of that suite of Debian or Ubuntu, and
# the tree FILES.
set -eu
disk=$1
files=$2
suite=$3

# Gone with this process, however it ends, and quickly.
if [ "${4:-}" != inside ]; then
    exec unshare --mount "$0" "$disk" "$files" "$suite" inside
fi
root=/mnt
mount -t tmpfs -o mode=755 root "$root"

# Newer ones have one /usr by their packages alone.
merged=
if [ "$suite" = bookworm ]; then merged="--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged"; fi
# shellcheck disable=SC2086 # a word each
mmdebstrap --quiet --mode=root --variant=apt --aptopt='Acquire::Retries "3"' \
    --include=systemd,systemd-sysv,adduser,ca-certificates,curl,dbus,e2fsprogs,iproute2,iptables,jq,kmod,nftables,procps \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    $merged \
    "$suite" "$root"
# What is installed later is installed as anywhere.
rm "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
cp -r "$files/." "$root/"
mkdir -p "$root/usr/lib/modules" "$root/workspace"
# Every machine is another one.
: >"$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
export SYSTEMD_OFFLINE=1
chroot "$root" systemctl --quiet enable machine-settings.service machine-run.socket
# They take time, and there is nothing for them to do.
chroot "$root" systemctl --quiet mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    getty-static.service getty@tty1.service systemd-pstore.service systemd-timesyncd.service

truncate --size=4G "$disk.new"
mkfs.ext4 -q -F -d "$root" "$disk.new"
mv "$disk.new" "$disk"
