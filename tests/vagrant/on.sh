#!/bin/bash
# on.sh NODE SCRIPT: runs a bash script as root on a machine of the test, as `vagrant ssh` would. MACHINES names them, NAME=IP each.
set -euo pipefail
for machine in $MACHINES; do
    if [ "${machine%%=*}" = "$1" ]; then ip=${machine#*=}; fi
done
output=$(printf %s "$2" | busybox nc "$ip" 7)
# The last line is the exit code.
printf %s "${output%exit=*}"
exit "${output##*exit=}"
