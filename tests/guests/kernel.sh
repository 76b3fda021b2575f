#!/bin/sh
# kernel.sh DIRECTORY: makes it, with Debian's kernel for clouds unpacked in it: vmlinuz, and what it loads in lib/modules.
# Nothing of it is installed here; lists of packages are fetched into a directory of their own.
set -eu
place=$1
work=$place.new
rm -rf "$work"
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
cd "$work"

debian() { "$@" -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root; }

debian apt-get --quiet=2 -o Acquire::Retries=3 update
package=$(debian apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')
debian apt-get --quiet=2 -o Acquire::Retries=3 download "$package"
dpkg-deb --extract ./*.deb unpacked
mkdir lib
mv unpacked/boot/vmlinuz-* vmlinuz
mv unpacked/lib/modules lib/
depmod --basedir "$work" "$(ls lib/modules)"
rm -r apt unpacked ./*.deb
mv "$work" "$place"
