#!/bin/sh
# uml-worker.sh DIRECTORY WORD...: on a virtual host, becomes a User-mode Linux that has the host's cable, and the disk in
# DIRECTORY.
set -eu
directory=$1
shift
# The address is the guest's, whose kernel takes every packet off the cable itself.
mac=$(cat /sys/class/net/eth0/address)
ip address flush dev eth0
exec linux.uml mem=1024M quiet root=/dev/root rootfstype=hostfs rootflags=/ ro \
    ubd0="$directory/disk" uml_dir="$directory/" umid=guest con=null con0=null,fd:1 \
    vec0:transport=raw,ifname=eth0,gro=1,mac="$mac" "$@"
