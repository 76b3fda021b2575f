#!/bin/bash
# Makes this machine the controller of a cluster, or a worker of it, from Tucano's packages. May be run again at any time:
# it changes only what is not as it should be, says each change, and at the end how many there were. As root:
#
#   provision.sh controller --ip IP --worker NAME=IP [--worker NAME=IP]... [--lease TIME] --files DIRECTORY
#   provision.sh worker --name NAME --ip IP --controller IP --files DIRECTORY
#
# DIRECTORY holds the packages (*.deb); agent-token, which is removed once it is installed; ca.pem, the certificate of the cluster's
# authority; for a controller also ca-key.pem, its key, which is removed too, and hello.tar and service.toml, the image and the
# configuration of images/hello. A controller waits for its workers.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# What was installed from which file: packages of one version may differ while they are being worked on.
RECORDS=/var/lib/tucano-provision
PATIENCE_SECONDS=900
SETTINGS=$(mktemp)
chmod 0644 "$SETTINGS"
trap 'rm -f "$SETTINGS"' EXIT
changes=0

main() {
    [ "$(id -u)" = 0 ] || fail "run it as root"
    role=${1:-}
    shift || true
    read_options "$@"
    case $role in
    controller) make_controller ;;
    worker) make_worker ;;
    *) fail "say what this machine is to be: controller or worker" ;;
    esac
    echo "changes: $changes"
}

read_options() {
    files='' name='' ip='' controller='' lease=6s workers=()
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 lacks its value"
        case $1 in
        --files) files=$2 ;;
        --name) name=$2 ;;
        --ip) ip=$2 ;;
        --controller) controller=$2 ;;
        --lease) lease=$2 ;;
        --worker) workers+=("$2") ;;
        *) fail "there is no option $1" ;;
        esac
        shift 2
    done
    [ -d "$files" ] || fail "--files $files: there is no such directory"
    [ -n "$ip" ] || fail "--ip is missing"
}

make_controller() {
    [ ${#workers[@]} -gt 0 ] || fail "--worker is missing"
    install_tools
    install_packages tucano-ctl tucano-cli
    install_token root:tucano 0640 tucano-ctl.service
    install_authority
    controller_settings >"$SETTINGS"
    tucano_ctld --config "$SETTINGS" --check
    put "$SETTINGS" /etc/tucano/ctl.toml tucano-ctl.service
    restart_if_due tucano-ctl.service
    make_balancer_public
    await "the API to answer" tucano_here nodes
    await "${#workers[@]} workers to be alive" all_alive
    deploy_hello
    await "hello to answer" request
    request
}

make_worker() {
    [ -n "$name" ] || fail "--name is missing"
    [ -n "$controller" ] || fail "--controller is missing"
    install_packages tucano-agent
    install_token root:root 0600 tucano-agent.service
    install_certificate root:root /etc/tucano/ca.pem tucano-agent.service
    worker_settings >"$SETTINGS"
    tucano_agentd --config "$SETTINGS" --check
    put "$SETTINGS" /etc/tucano/agent.toml tucano-agent.service
    restart_if_due tucano-agent.service
    await "the agent to run" systemctl is-active --quiet tucano-agent.service
}

controller_settings() {
    cat <<END
# Written by provision.sh.
token_file = "/etc/tucano/token"
agent_token_file = "/etc/tucano/agent-token"
lease = "$lease"

[api]
listen = ["127.0.0.1:7070", "$ip:7070"]

[balancer]
# It is a unit of its own, tucano-balancer.service.
spawn = false

[[topology]]
kind = "ctl"
ip = "$ip"
END
    local worker
    for worker in "${workers[@]}"; do
        printf '\n[[topology]]\nkind = "worker"\nip = "%s"\nname = "%s"\n' "${worker#*=}" "${worker%%=*}"
    done
}

worker_settings() {
    cat <<END
# Written by provision.sh.
controller = "https://$controller:7070"
token_file = "/etc/tucano/agent-token"
listen = "$ip:7071"
ip = "$ip"
name = "$name"
END
}

# The package's socket listens on loopback alone.
make_balancer_public() {
    local unit=/etc/systemd/system/tucano-balancer.socket.d
    mkdir -p "$unit"
    printf '[Socket]\nListenStream=\nListenStream=0.0.0.0:8080\n' >"$SETTINGS"
    put "$SETTINGS" "$unit/listen.conf" tucano-balancer.socket
    if is_due tucano-balancer.socket; then
        systemctl daemon-reload
        # A socket is not opened anew while its service runs.
        systemctl stop tucano-balancer.service
        restart_if_due tucano-balancer.socket
        systemctl start tucano-balancer.service
    fi
}

# The same configuration and image again change nothing.
deploy_hello() {
    local deployed
    deployed=$(tucano_here deploy "$files/service.toml" --image "$files/hello.tar" --timeout "${PATIENCE_SECONDS}s" --json)
    if [ "$(jq .changed <<<"$deployed")" = true ]; then
        changed "hello is deployed"
    fi
}

tucano_here() { tucano --token-file /etc/tucano/token "$@"; }

all_alive() {
    [ "$(tucano_here state | jq '.alive_nodes | length')" = "${#workers[@]}" ]
}

install_tools() {
    local tool missing=()
    for tool in curl jq; do
        if ! command -v "$tool" >/dev/null; then missing+=("$tool"); fi
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
        changed "${missing[*]} installed"
    fi
}

# Installs those of which this very file is not installed yet.
install_packages() {
    local package deb new=()
    mkdir -p "$RECORDS"
    for package; do
        deb=$(find "$files" -maxdepth 1 -name "${package}_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
        [ -n "$deb" ] || fail "$files has no package $package"
        if ! is_installed "$package" || [ "$(sha256sum <"$deb")" != "$(cat "$RECORDS/$package" 2>/dev/null)" ]; then
            new+=("$deb")
        fi
    done
    [ ${#new[@]} -gt 0 ] || return 0
    apt_install --reinstall --allow-downgrades "${new[@]}"
    for deb in "${new[@]}"; do
        package=$(dpkg-deb --field "$deb" Package)
        sha256sum <"$deb" >"$RECORDS/$package"
        changed "$package is installed"
    done
}

is_installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# With the lists of packages as they are, and where that fails, with new ones.
apt_install() {
    apt_get install "$@" || { apt_get update && apt_get install "$@"; }
}

# Waits for other package managers at work; leaves the configuration to this script.
apt_get() {
    apt-get --quiet=2 --yes --no-install-recommends --option DPkg::Lock::Timeout=600 \
        --option Dpkg::Options::=--force-confold "$@" </dev/null
}

# Owner, mode and reader of the agents' token, whose upload is then removed.
install_token() {
    local token=/etc/tucano/agent-token upload=$files/agent-token
    if [ -e "$upload" ]; then
        # As its copy is to be, from the beginning.
        chown "$1" "$upload"
        chmod "$2" "$upload"
        put "$upload" "$token" "$3"
        rm -f "$upload"
    fi
    [ -s "$token" ] || fail "$upload is missing"
}

# Owner, place and reader of the certificate of the cluster's authority.
install_certificate() {
    local upload=$files/ca.pem
    if [ -e "$upload" ]; then
        chown "$1" "$upload"
        chmod 0644 "$upload"
        put "$upload" "$2" "$3"
    fi
    [ -s "$2" ] || fail "$upload is missing"
}

# In place of the one that the package's controller made at its first start: workers have had its certificate before.
install_authority() {
    local tls=/var/lib/tucano/ctl/tls upload=$files/ca-key.pem
    if [ -e "$upload" ]; then
        install --directory --owner=tucano --group=tucano --mode=0700 "$tls"
        chown tucano:tucano "$upload"
        chmod 0600 "$upload"
        put "$upload" "$tls/ca-key.pem" tucano-ctl.service
        rm -f "$upload"
    fi
    [ -s "$tls/ca-key.pem" ] || fail "$upload is missing"
    install_certificate tucano:tucano "$tls/ca.pem" tucano-ctl.service
}

# put FILE PATH UNIT: installs a file with its owner and mode, and notes that the unit is to read it, unless it is there already.
put() {
    if cmp --quiet "$1" "$2"; then return; fi
    cp --preserve=mode,ownership "$1" "$2.new"
    touch "$RECORDS/$3.is-due"
    mv "$2.new" "$2"
    changed "$2"
}

# The note outlives a run that was interrupted.
is_due() { [ -e "$RECORDS/$1.is-due" ]; }

restart_if_due() {
    if is_due "$1"; then
        systemctl restart "$1"
        rm "$RECORDS/$1.is-due"
    fi
}

request() { curl --fail --silent --show-error --max-time 10 --header 'Host: hello.localhost' "http://$ip:8080/"; }

await() {
    local what=$1 deadline=$((SECONDS + PATIENCE_SECONDS))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "waited $PATIENCE_SECONDS seconds in vain for $what"
        sleep 1
    done
}

changed() {
    changes=$((changes + 1))
    echo "changed: $*"
}

fail() {
    echo "provision.sh: $*" >&2
    exit 1
}

main "$@"
