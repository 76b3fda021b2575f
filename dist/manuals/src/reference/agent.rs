//! `agent.toml`: the agent's configuration.

use super::keys::{Bounds, Key, describe};

const HEAD: &str = "\
# agent.toml

The configuration of a worker's agent, `/etc/tucano/agent.toml` in packages: TOML. `controller` is
needed; every other key has a default. An unknown key is an error that names its line.
`tucano_agentd --config agent.toml --check` validates the file.

A change counts after `systemctl restart tucano-agent`. Containers run on meanwhile.

```toml
controller = \"https://10.0.0.1:7070\"
ca_file = \"/etc/tucano/ca.pem\"
token_file = \"/etc/tucano/agent-token\"
```

";

pub(super) fn page() -> String {
    format!(
        "{HEAD}## Keys\n\n{}## `[limits]`: bounds\n\nBounds on what the agent does and takes.\n\n{}",
        describe(&KEYS),
        describe(&LIMITS)
    )
}

const fn key(
    name: &'static str,
    default: &'static str,
    bounds: Bounds,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        default,
        bounds,
        meaning,
        change: "",
    }
}

#[rustfmt::skip]
const KEYS: [Key; 41] = [
    key("controller", "", Bounds::Free,
        "Address of the controller's API, such as `\"https://10.0.0.1:7070\"`."),
    key("tls", "", Bounds::Free,
        "`\"on\"` or `\"off\"`. Without it: `\"off\"` where `controller` is an `http://` address of another machine, else \
         `\"on\"`. See [TLS](../operations/tls.md)."),
    key("ca_file", "\"/etc/tucano/ca.pem\"", Bounds::Free,
        "The certificate of the cluster's authority, by which the agent knows the controller: a copy of the controller's \
         `ca.pem`."),
    key("token", "", Bounds::Free,
        "The agents' token, the same as the controller's `agent_token`."),
    key("token_file", "", Bounds::Free,
        "A file that holds it instead."),
    key("token_overlap", "\"24h\"", Bounds::Free,
        "How long the previous token is accepted after the file has changed."),
    key("data_dir", "\"/var/lib/tucano/agent\"", Bounds::Free,
        "Where layers, containers and logs are kept: an absolute path."),
    key("publish_interval", "\"1s\"", Bounds::Between("\"50ms\"", "\"1h\""),
        "Time between two reports when nothing changes."),
    key("ip", "", Bounds::Free,
        "The worker's address as the topology has it. Without it: the local address of the connection to the controller."),
    key("name", "", Bounds::Free,
        "The worker's name as the topology has it. Without it the controller finds the worker by `ip`."),
    key("listen", "\"0.0.0.0:7071\"", Bounds::Free,
        "Where the controller reaches the agent."),
    key("subnet", "\"172.31.0.0/16\"", Bounds::Free,
        "Addresses of the containers' network on this node."),
    key("bridge", "\"tucano0\"", Bounds::Free,
        "Name of the bridge that containers are attached to: 1 to 15 letters, digits, `-` and `_`."),
    key("ports", "\"20000-29999\"", Bounds::Free,
        "Ports of the node that are forwarded to processes, for the machines of the cluster only."),
    key("node_port_clients", "[]", Bounds::Free,
        "Further addresses and ranges whose connections to `ports` are forwarded, such as `[\"192.0.2.0/24\"]`."),
    key("suspect_after", "\"600ms\"", Bounds::Between("\"100ms\"", "\"1m\""),
        "How long another worker may leave [pings](../tasks/connect.md#workers-that-do-not-answer) unanswered before new connections of this worker's \
         processes go to other workers. `\"0s\"`: workers are not pinged."),
    key("dns", "[]", Bounds::Free,
        "The processes' name servers: at most three IPv4 addresses that containers can reach. Without it: those of \
         `/etc/resolv.conf` that are not on loopback, else those of systemd-resolved."),
    key("cgroup", "", Bounds::Free,
        "Parent of the containers' cgroups, below the agent's own; with a leading slash, below where cgroups are mounted. \
         Without it: `tucano`; in packages the cgroup of `tucano-processes.service`."),
    key("memory_reserved", "\"128MiB\"", Bounds::Free,
        "Memory kept for the system: the rest may be reserved for processes."),
    key("memory_reservable", "", Bounds::Free,
        "Memory that may be reserved for processes, in place of all but `memory_reserved`."),
    key("unused_images_kept", "\"10m\"", Bounds::Free,
        "How long layers stay that no process needs."),
    key("controller_wait", "\"10s\"", Bounds::Free,
        "After the agent's start, how long stored processes wait for the controller before they are started without it."),
    key("caps_without_user_namespaces", "false", Bounds::OneOf(&["true", "false"]),
        "Whether services get the `caps` that they ask for where user namespaces do not work. They are then those of the \
         node's root; see [security](../security.md#capabilities)."),
    key("cdi_dirs", "[\"/etc/cdi\", \"/var/run/cdi\"]", Bounds::Free,
        "Directories whose files describe [devices](../tasks/devices.md) for containers, by the Container Device Interface: `.json`, `.yaml`. Of two descriptions \
         of a device the later directory's counts. Directories and files are root's, and writable by root alone."),
    key("device_paths", "[]", Bounds::Free,
        "Device nodes that services may have in their containers, such as `/dev/fuse`. Each can be many processes' at once."),
    key("backup_paths", "[]", Bounds::Free,
        "Directories of the node that may have repositories of [backups](../tasks/volume-backups.md), with all below them: absolute \
         paths below the root. A link below a listed directory is followed only within it."),
    key("host_paths", "[]", Bounds::Free,
        "Directories of the node that services may have in their containers (`[[mount]]` with `host`), with all below them: \
         absolute paths below the root. What a container's root writes there belongs to the node's root: list only what you \
         would give to each service. Among that are set-user-ID files of root, which users of the node could run: list directories below \
         one of mode 0700, or on a file system that is mounted `nosuid`. A link below a listed directory is followed only within it; the agent's own directories are \
         never given."),
    key("runtime", "", Bounds::Free,
        "The program that starts containers. Without it: `tucano_oci` beside the agent's."),
    key("logs.file_bytes", "\"10MiB\"", Bounds::AtLeast("\"4KiB\""),
        "Largest log file of a process's stream; it is rotated when it is full. Beside the log files, an index of their \
         order and times takes up to a quarter of their space."),
    key("logs.files", "3", Bounds::AtLeast("1"),
        "How many log files are kept of each stream."),
    key("logs.kept", "\"1h\"", Bounds::Free,
        "How long output is kept after its process was removed. `0s`: not at all."),
    key("logs.kept_bytes", "\"256MiB\"", Bounds::Free,
        "Most bytes of output that is kept of removed processes; beyond, the oldest is removed."),
    key("images.unpack", "\"auto\"", Bounds::OneOf(&["\"auto\"", "\"directories\"", "\"erofs\""]),
        "What layers are unpacked to. `\"erofs\"`: files that the kernel mounts (Linux 6.4 or newer, with EROFS). \
         `\"directories\"`: directories of files. `\"auto\"`: the first where it works."),
    key("images.check_again", "\"24h\"", Bounds::AtLeast("\"1s\""),
        "A layer is read and checked before a start where that was longer ago, or before the agent's own start."),
    key("volumes.path", "", Bounds::Free,
        "The directory of the services' volumes: an absolute path. Without it: `volumes` in `data_dir`. It may be on a disk of its \
         own: while that is not mounted, processes with volumes wait, and nothing is created in its place; see \
         [failures](../operations/failures.md#volumes). If its file system enforces project quotas, these keep new volumes to their \
         sizes."),
    key("volumes.reserve", "", Bounds::Free,
        "What volumes leave free where they are on the file system of `data_dir`: the agent needs room for what it stores, such as the \
         set by which a volume is removed. Without it: the smaller of 5 % of that file system and `\"1GiB\"`."),
    key("backups.program", "", Bounds::Free,
        "The program that stores and restores [backups](../tasks/volume-backups.md). Without it: `tucano_backup` beside \
         `tucano_agentd`, else in `/usr/lib/tucano`."),
    key("backups.concurrency", "1", Bounds::Between("1", "16"), "Concurrent backups. Others wait."),
    key("backups.timeout", "\"24h\"", Bounds::Between("\"1s\"", "\"720h\""),
        "Time limit of a backup, and of what is loaded into a new volume, once it has begun."),
    key("backups.process_wait", "\"60s\"", Bounds::Between("\"0s\"", "\"1h\""),
        "How long a backup waits for its process to be healthy, where it has a `dump`, and for a controller that does not give a secret."),
    key("backups.memory", "\"512MiB\"", Bounds::Between("\"64MiB\"", "\"64GiB\""),
        "Memory limit of the program."),
];

#[rustfmt::skip]
const LIMITS: [Key; 22] = [
    key("limits.processes", "1000", Bounds::Between("1", "4000"),
        "Most processes of services on this node."),
    key("limits.body_bytes", "\"16MiB\"", Bounds::Between("\"4KiB\"", "\"256MiB\""),
        "Largest desired set."),
    key("limits.starts", "8", Bounds::Between("1", "1024"),
        "Most containers that are started at once."),
    key("limits.ready_networks", "8", Bounds::Between("0", "256"),
        "How many networks (namespace, address and link) are kept ready for the next starts, while there are processes."),
    key("limits.ready_supervisors", "8", Bounds::Between("0", "256"),
        "How many supervisors of containers, some 200 KiB each, are kept ready, likewise."),
    key("limits.layer_pulls", "3", Bounds::Between("1", "64"),
        "Most layers that are fetched and unpacked at once."),
    key("limits.tracked_connections", "131072", Bounds::Between("0", "16777216"),
        "How many connections the kernel has room for at least: `nf_conntrack_max` is raised where it is less. Linux drops \
         new connections when its table is full, and gives a machine of 1 GiB room for 8,192. `0` leaves it as it is."),
    key("limits.prefetches", "32", Bounds::Between("1", "1024"),
        "Most layers that are fetched, or wait for it, before the image that has them is complete."),
    key("limits.stalled_transfer", "\"30s\"", Bounds::Free,
        "A transfer that brings no byte for this long is given up and tried again."),
    key("limits.disk_interval", "\"1s\"", Bounds::Between("\"10ms\"", "\"1h\""),
        "Shortest time between two measurements of what a process has written."),
    key("limits.followers", "64", Bounds::Between("1", "4096"),
        "Most clients that follow logs at once."),
    key("limits.sessions", "32", Bounds::Between("1", "1024"),
        "Most commands that `exec` runs on this node at once."),
    key("limits.log_lines", "10000", Bounds::Between("1", "1000000"),
        "Most lines of one answer with logs, of both streams together."),
    key("limits.log_bytes", "\"4MiB\"", Bounds::Free,
        "Most bytes of one answer with logs, of both streams together. A line over 1 MiB comes in pieces."),
    key("limits.volume_copies", "2", Bounds::Between("1", "16"),
        "Most volumes that are copied from other workers at once, and most that other workers read at once."),
    key("limits.volume_entries", "2000000", Bounds::Between("1", "4000000"),
        "Most files and directories of a volume that is copied from another worker."),
    key("limits.devices", "1024", Bounds::Between("1", "16384"),
        "Names of devices that are described on the node."),
    key("limits.cdi_file", "\"1MiB\"", Bounds::Free,
        "Largest file that describes devices."),
    key("limits.layer_bytes", "\"32GiB\"", Bounds::Free,
        "Largest layer, unpacked."),
    key("limits.connections", "256", Bounds::Between("1", "10000"),
        "Most connections of clients other than the controller at once. Beyond, the oldest is closed."),
    key("limits.handshakes", "64", Bounds::Between("1", "10000"),
        "Most connections that have not begun a request."),
    key("limits.handshake_timeout", "\"10s\"", Bounds::Between("\"100ms\"", "\"10m\""),
        "How long a connection may take until its first request."),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use tucano_agent::settings::Settings;
    use tucano_api::settings::parse;

    use super::*;
    use crate::reference::keys::{assert_complete, fields, setting};

    const FILE: &str = "agent/src";

    fn parsed(more: &str) -> Result<Settings, String> {
        let text = format!("controller = \"https://10.0.0.1:7070\"\ntoken = \"t\"\n{more}");
        parse("agent.toml", &text).map_err(|error| error.to_string())
    }

    fn all() -> impl Iterator<Item = Key> {
        KEYS.into_iter().chain(LIMITS)
    }

    #[test]
    fn every_key_is_described() {
        let tables = ["logs", "images", "volumes", "backups", "limits"];
        assert_complete(&KEYS, "", &fields(FILE, "Settings"), &tables);
        assert_complete(&KEYS, "logs.", &fields(FILE, "Logs"), &[]);
        assert_complete(&KEYS, "images.", &fields(FILE, "ImageSettings"), &[]);
        assert_complete(&KEYS, "volumes.", &fields(FILE, "VolumeSettings"), &[]);
        let own = [
            "program",
            "concurrency",
            "timeout",
            "process_wait",
            "memory",
        ];
        assert_complete(&KEYS, "backups.", &own.map(str::to_owned), &[]);
        assert_complete(&LIMITS, "limits.", &fields(FILE, "Limits"), &[]);
    }

    #[test]
    fn defaults_are_the_defaults() {
        let usual = format!("{:?}", parsed("").unwrap());
        for key in all().filter(|key| !key.default.is_empty()) {
            let read = parsed(&setting(key.name, key.default)).unwrap();
            assert_eq!(format!("{read:?}"), usual, "{}", key.name);
        }
    }

    #[test]
    fn bounds_are_the_bounds() {
        for key in all() {
            for value in key.bounds.accepted() {
                parsed(&setting(key.name, value)).unwrap();
            }
            for value in key.bounds.refused() {
                assert!(
                    parsed(&setting(key.name, &value)).is_err(),
                    "{} = {value}",
                    key.name
                );
            }
        }
    }
}
