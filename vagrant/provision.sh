#!/bin/bash
# Makes this machine the controller of a cluster, or a worker of it, from Tucano's packages. Idempotent: it changes only what
# differs, and prints each change and their number. Lines that were added to a configuration by hand are kept. As root:
#
#   provision.sh controller --ip IP --worker NAME=IP [--worker NAME=IP]... [--lease TIME] --files DIRECTORY
#   provision.sh worker --name NAME --ip IP --controller IP --files DIRECTORY
#
# DIRECTORY holds the packages (*.deb); agent-token, which is removed once it is installed; ca.pem, the certificate of the cluster's
# authority; for a controller also ca-key.pem, its key, which is removed too, and hello.tar and service.toml, the image and the
# configuration of images/hello. A controller waits for its workers.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# Checksums of installed packages, because packages of one version may differ during development; settings as last written.
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
    *) fail "the first argument is controller or worker" ;;
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
    put_settings "$SETTINGS" /etc/tucano/ctl.toml tucano-ctl.service tucano_ctld
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
    put_settings "$SETTINGS" /etc/tucano/agent.toml tucano-agent.service tucano_agentd
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
# The balancer is a unit of its own, tucano-balancer.service.
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

# The package's socket listens on loopback only.
make_balancer_public() {
    local unit=/etc/systemd/system/tucano-balancer.socket.d
    mkdir -p "$unit"
    printf '[Socket]\nListenStream=\nListenStream=0.0.0.0:8080\n' >"$SETTINGS"
    put_settings "$SETTINGS" "$unit/listen.conf" tucano-balancer.socket
    if is_due tucano-balancer.socket; then
        systemctl daemon-reload
        # A socket cannot be reopened while its service runs.
        systemctl stop tucano-balancer.service
        restart_if_due tucano-balancer.socket
        systemctl start tucano-balancer.service
    fi
}

# Deploying the same configuration and image again changes nothing.
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

# Installs each package unless this very file is installed already.
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

# With the package lists at hand, and after a failure with new ones.
apt_install() {
    apt_get install "$@" || { apt_get update && apt_get install "$@"; }
}

# Waits for other package managers at work; leaves the configuration to this script.
apt_get() {
    apt-get --quiet=2 --yes --no-install-recommends --option DPkg::Lock::Timeout=600 \
        --option Dpkg::Options::=--force-confold "$@" </dev/null
}

# install_token OWNER MODE UNIT: the agents' token; the upload is then removed.
install_token() {
    local token=/etc/tucano/agent-token upload=$files/agent-token
    if [ -e "$upload" ]; then
        # Owner and mode are copied.
        chown "$1" "$upload"
        chmod "$2" "$upload"
        put "$upload" "$token" "$3"
        rm -f "$upload"
    fi
    [ -s "$token" ] || fail "$upload is missing"
}

# install_certificate OWNER PATH UNIT: the certificate of the cluster's authority.
install_certificate() {
    local upload=$files/ca.pem
    if [ -e "$upload" ]; then
        chown "$1" "$upload"
        chmod 0644 "$upload"
        put "$upload" "$2" "$3"
    fi
    [ -s "$2" ] || fail "$upload is missing"
}

# Replaces the authority that the controller created at its first start: workers were given this one's certificate.
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

# put FILE PATH UNIT: installs a file with its owner and mode unless it is there, and records that the unit must read it.
put() {
    if cmp --quiet "$1" "$2"; then return; fi
    cp --preserve=mode,ownership "$1" "$2.new"
    touch "$RECORDS/$3.is-due"
    mv "$2.new" "$2"
    changed "$2"
}

# put_settings FILE PATH UNIT [PROGRAM]: the same for settings, into which changes that were made by hand since the last run are
# merged. The program checks the result.
put_settings() {
    local settings=$1 path=$2 unit=$3 program=${4:-} written merged
    written=$RECORDS/$(basename "$path").written
    if [ -e "$path" ] && [ -e "$written" ]; then
        merged=$(mktemp)
        if ! merge "$path" "$written" "$settings" >"$merged"; then
            mv "$merged" "$path.conflict"
            fail "$path was changed by hand in lines that have new values: resolve $path.conflict, replace $path by it and run this again"
        fi
        if [ -n "$program" ]; then "$program" --config "$merged" --check; fi
        chmod 0644 "$merged"
        put "$merged" "$path" "$unit"
        rm -f "$merged"
    else
        keep_copy "$path" "$settings"
        put "$settings" "$path" "$unit"
    fi
    if ! cmp --quiet "$settings" "$written"; then cp "$settings" "$written"; fi
}

# merge MINE OLD NEW: lines that both sides added at one place are all kept; other conflicts are marked.
merge() {
    { diff3 --merge "$@" || [ $? = 1 ]; } | awk '
        /^<<<<<<< / { inside = 1; part = "mine"; mine = old = theirs = ""; first = $0; next }
        inside && /^\|\|\|\|\|\|\| / { part = "old"; next }
        inside && /^=======$/ { part = "new"; next }
        inside && /^>>>>>>> / {
            inside = 0
            if (old == "") { printf "%s%s", mine, theirs; next }
            conflicts++
            printf "%s\n%s|||||||\n%s=======\n%s%s\n", first, mine, old, theirs, $0
            next
        }
        inside { if (part == "mine") mine = mine $0 "\n"; else if (part == "old") old = old $0 "\n"; else theirs = theirs $0 "\n"; next }
        { print }
        END { exit conflicts > 0 }'
}

# A file from before there was a record of what was written: it may have additions, unless it is the package's.
keep_copy() {
    local path=$1 settings=$2
    if [ ! -e "$path" ] || cmp --quiet "$path" "$settings" || is_of_package "$path"; then return; fi
    cp --preserve=mode,ownership "$path" "$path.before-provision"
    echo "note: $path is replaced; its previous content is in $path.before-provision"
}

is_of_package() {
    local sum
    sum=$(md5sum <"$1" | cut -d ' ' -f 1)
    dpkg-query --show --showformat='${Conffiles}\n' 'tucano-*' 2>/dev/null | grep --quiet --fixed-strings " $1 $sum"
}

# The record survives an interrupted run.
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
        [ $SECONDS -lt $deadline ] || fail "waited $PATIENCE_SECONDS seconds for $what, without success"
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
