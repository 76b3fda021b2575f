#!/bin/sh
# emulated-worker.sh DIRECTORY KERNEL WORD...: on a virtual host, becomes an emulated machine with the host's address, and the
# disk and the initramfs in DIRECTORY.
set -eu
directory=$1
kernel=$2
shift 2
# The cable goes on to the machine.
ip address flush dev eth0
ip link add joint type bridge
ip tuntap add dev cable mode tap
ip link set eth0 master joint
ip link set cable master joint
ip link set joint up
ip link set cable up

/usr/lib/qemu/virtiofsd --socket-path="$directory/files.socket" -f -o source=/ -o sandbox=chroot >"$directory/files.log" 2>&1 &
until [ -S "$directory/files.socket" ]; do sleep 0.1; done
exec qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max,la57=off -smp 2 -m 1024M \
    -nodefaults -no-reboot -display none -serial stdio \
    -object memory-backend-memfd,id=memory,size=1024M,share=on -numa node,memdev=memory \
    -chardev "socket,id=files,path=$directory/files.socket" -device vhost-user-fs-pci,chardev=files,tag=host \
    -drive "file=$directory/disk,if=virtio,format=raw,cache=unsafe" \
    -netdev tap,id=cable,ifname=cable,script=no,downscript=no -device virtio-net-pci,netdev=cable,romfile= \
    -kernel "$kernel/vmlinuz" -initrd "$directory/initramfs" -append "$*" </dev/null
