#!/bin/sh
# initramfs.sh KERNEL FILE: writes what that kernel begins with: the modules that it needs to see this machine's files, by
# virtiofs, and a program that loads them, and then runs the command line's `begin` on those files.
set -eu
kernel=$1
file=$2
tree=$file.tree
mkdir -p "$tree/bin" "$tree/modules" "$tree/proc" "$tree/host"
cp "$(command -v busybox)" "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh"

release=$(ls "$kernel/lib/modules")
for module in virtio_pci virtiofs virtio_blk virtio_net overlay; do
    modprobe --dirname "$kernel" --set-version "$release" --show-depends "$module"
done | sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' >"$tree/list"
while read -r module; do
    cp "$module" "$tree/modules/"
    echo "/modules/${module##*/}" >>"$tree/order"
done <"$tree/list"

cat >"$tree/init" <<'END'
#!/bin/sh
export PATH=/bin
busybox mount -t proc proc /proc
while read -r module; do busybox insmod "$module" || busybox poweroff -f; done </order
busybox mount -t virtiofs -o ro host /host || busybox poweroff -f
begin=$(busybox tr ' ' '\n' </proc/cmdline | busybox sed -n 's/^begin=//p')
busybox umount /proc
exec busybox switch_root /host "$begin"
END
chmod +x "$tree/init"
(cd "$tree" && find . | busybox cpio --quiet -o -H newc) >"$file"
