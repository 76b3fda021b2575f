//! `service.toml`: a service's configuration.

use tucano_api::service::{Effect, effect_of};

use super::keys::{Bounds, Key, describe};

const HEAD: &str = "\
# service.toml

A service's configuration: TOML, or JSON. `name` and `concurrency` are needed, and `port` or `ports`
where something connects to the service; every other key has a default. An unknown key is an error that names its line and the key that was probably
meant. `tucano check FILE` validates a file without a controller.

```toml
name = \"hello\"
concurrency = 6
port = 8080
memory = \"64MiB\"
health = { http = \"/healthz\" }
```

Sizes are written as `\"64MiB\"`, durations as `\"500ms\"`, `\"30s\"`, `\"1h\"`.

";

const TAIL: &str = "\
## What a process finds

The environment of the image, then of `env`, and `TUCANO_SERVICE`, `TUCANO_REVISION`,
`TUCANO_PROCESS`, `TUCANO_NODE`, and `PORT`, the port of requests, else the first one with TCP, else
the first one.

The program is pid 1 of its pid namespace. The kernel gives pid 1 no default action for signals: a
program that does not handle SIGTERM is ended by SIGKILL, after `stop_timeout`.
";

pub(super) fn page() -> String {
    let keys = KEYS.map(|key| Key {
        change: change(key.name),
        ..key
    });
    format!("{HEAD}## Keys\n\n{}{TAIL}", describe(&keys))
}

/// What a change of a key does, by the table of the effects of changes.
fn change(name: &str) -> &'static str {
    match name {
        "name" => "another service",
        _ => effect_of(name).map_or("", Effect::describe),
    }
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
const KEYS: [Key; 97] = [
    key("name", "", Bounds::Free,
        "The service's name: lower-case letters, digits and `-`. It is unique in the cluster, and the first label of the host \
         name `<name>.<domain>`."),
    key("app", "", Bounds::Free,
        "The application that the service belongs to: a name like a service's. `tucano services --app` and `tucano ps --app` show \
         the services of one application. Without it: none."),
    key("concurrency", "", Bounds::Between("1", "10000"),
        "How many processes are kept alive. Absent with `placement.everywhere`, and for a [job](../tasks/jobs.md)."),
    key("kind", "\"service\"", Bounds::Free,
        "`\"service\"`: processes are kept alive. `\"job\"`: they run to completion, see [Run jobs](../tasks/jobs.md); then there is no \
         `concurrency`, port, host or volume. One does not become the other. Only workers whose agents know this key run jobs."),
    key("port", "", Bounds::Between("1", "65535"),
        "The TCP port on which each process listens for HTTP, inside its own network namespace. Short for `ports.http`. A service \
         without ports gets no connections."),
    key("ports.<name>", "", Bounds::Between("1", "65535"),
        "A named port: a number, or a table with the keys below. Names have at most 15 lower-case letters, digits and `-`. Requests \
         go to the port named `http`, or to the only one, if its protocol is `http`. Only workers whose agents know this key run \
         the service."),
    key("ports.<name>.port", "", Bounds::Between("1", "65535"),
        "The port on which each process listens, inside its own network namespace."),
    key("ports.<name>.protocol", "\"http\"", Bounds::Free,
        "What is spoken on it: `http`, `tcp` or `udp`."),
    key("ports.<name>.health", "", Bounds::Free,
        "A probe of this port, beside `health`: `{ http = \"/path\" }` or `{ tcp = true }`. A process is healthy while all its \
         probes succeed."),
    key("image", "", Bounds::Free,
        "The image. `name:tag`, `name@sha256:…`, `name@sha512:…` or `sha256:…` is one that the controller stores; \
         `host[:port]/name:tag` or `…@sha256:…` is in another registry that `ctl.toml` lists. For `tucano deploy` it is also an \
         archive or an OCI layout directory, relative to this file. With an archive in the request it is the name of an image in \
         it. Without it the request carries the image."),
    key("hosts", "[]", Bounds::Free,
        "Host names that the balancer routes to this service, beside `<name>.<domain>`: lower case, without a port."),
    key("path_prefix", "", Bounds::Free,
        "Only requests whose path begins with this, on a `/` boundary, go to this service. The longest prefix of a host wins. \
         Without it: all paths."),
    key("env", "{}", Bounds::Free,
        "Variables of each process's environment, beside the image's own."),
    key("env_file", "[]", Bounds::Free,
        "For `tucano deploy`: files of `NAME=value`, relative to this file. Their variables are added to `env`, whose own come first."),
    key("entrypoint", "", Bounds::Free,
        "Program and first arguments in place of the image's `Entrypoint`. The image's `Cmd` is not used then. Only workers whose \
         agents know this key run the service."),
    key("args", "", Bounds::Free,
        "Arguments in place of the image's `Cmd`. Its `Entrypoint` stays."),
    key("user", "", Bounds::Free,
        "`user`, `uid`, `user:group` or `uid:gid` in place of the image's `User`."),
    key("working_dir", "", Bounds::Free,
        "The working directory in place of the image's. It is created if it is missing. Only workers whose agents know this key run \
         the service."),
    key("hostname", "", Bounds::Free,
        "The host name of each container. Without it: the process's id. Only workers whose agents know this key run the service."),
    key("stop_signal", "", Bounds::Free,
        "The signal that asks a process to end, such as `\"SIGQUIT\"`, in place of the image's. Without both: SIGTERM. Only workers \
         whose agents know this key run the service."),
    key("ulimits", "{}", Bounds::Free,
        "Limits of each program's resources: `{ nofile = 65536, memlock = -1, stack = { soft = 1, hard = 2 } }`. `-1` and \
         `\"unlimited\"` are none. Possible are `as`, `core` (0 only), `cpu`, `data`, `fsize`, `memlock`, `nofile`, `nproc` and `stack`. \
         Only workers whose agents know this key run the service."),
    key("sysctls", "{}", Bounds::Free,
        "Kernel settings of the container's own namespaces: `{ \"net.core.somaxconn\" = \"1024\" }`. Others are refused. Only workers \
         whose agents know this key run the service."),
    key("extra_hosts", "{}", Bounds::Free,
        "Names and addresses in each container's `/etc/hosts`: `{ printer = \"10.1.0.7\" }`. Only workers whose agents know this key \
         run the service."),
    key("dns", "[]", Bounds::Free,
        "Name servers in place of the node's, at most 3 IPv4 addresses. Only workers whose agents know this key run the service."),
    key("memory", "\"256MiB\"", Bounds::Between("\"4MiB\"", "\"1024TiB\""),
        "Memory limit of each process, without swap; also what each process reserves on its node. A process whose node has not \
         enough memory for it to grow is replaced by one on a node that has. A limit below what a process uses now, without its \
         page cache, is refused."),
    key("disk", "\"2GiB\"", Bounds::Between("\"1MiB\"", "\"1024TiB\""),
        "How much each process may write to its own file system, which is empty again after each start. It is measured every \
         second; a process that has written more is killed. A limit below what a process has written is refused."),
    key("cpus", "", Bounds::Between("0.01", "1024"),
        "How many CPUs' time each process may use, such as `0.5`. Without it: unlimited."),
    key("cpus_reserved", "", Bounds::Between("0.001", "1024"),
        "How many CPUs each process reserves on its node, such as `0.5`. Processes that reserve more CPUs than a node has are not \
         placed on it. Without it: none."),
    key("pids", "512", Bounds::Between("1", "4194304"),
        "How many processes and threads each container may have. A limit below what a process has now is refused."),
    key("caps", "[]", Bounds::Free,
        "Capabilities of programs that run as the container's root: `\"web\"`, or a list of names. See \
         [security](../security.md#capabilities)."),
    key("read_only", "false", Bounds::OneOf(&["true", "false"]),
        "Whether the root file system is read-only, with a tmpfs on `/tmp`. Directories that the image declares as `VOLUME` \
         stay writable, within `disk`."),
    key("tmp_size", "", Bounds::Free,
        "Size of that tmpfs, from 4KiB to `memory`; it counts as memory. Only with `read_only`. Without it: 64MiB."),
    key("shm_size", "", Bounds::Free,
        "Size of `/dev/shm`, from 4KiB to `memory`; it counts as memory. Without it: 64MiB."),
    key("init", "false", Bounds::OneOf(&["true", "false"]),
        "Whether an init of the runtime's is each container's first process: it reaps processes whose parent has ended, which \
         otherwise count for `pids` until the container ends, forwards signals to the image's program, and ends with its exit \
         code or signal. It counts for `pids`. For images whose program starts others and does not wait for them. Only \
         workers whose agents know the key take new processes."),
    key("file.path", "", Bounds::Free,
        "`[[file]]`, once for each file, at most 64: a text file that is mounted read-only into each container at this absolute \
         path. Directories that the image does not have are created; links of the image are followed within it. Only workers \
         whose agents know the key take new processes."),
    key("file.content", "", Bounds::Free,
        "Its text: at most 64KiB, and 512KiB of all files together."),
    key("file.from", "", Bounds::Free,
        "In place of `content`: a file, relative to the configuration, that `tucano deploy` reads and sends. Over the API it is \
         refused."),
    key("file.mode", "\"0444\"", Bounds::Free,
        "Its permissions, as for chmod. Without an `x` it cannot be executed by any means."),
    key("file.uid", "0", Bounds::Between("0", "65535"),
        "Its owner in the container."),
    key("file.gid", "0", Bounds::Between("0", "65535"),
        "Its group in the container."),
    key("devices", "[]", Bounds::Free,
        "Devices of the worker that each container has, at most 64: `nvidia.com/gpu=1` for so many of a kind, whichever are free; `nvidia.com/gpu=NAME` \
         for a certain one, whose name is no number; `/dev/fuse` for a device node that the worker's `agent.toml` lists in \
         `device_paths`. See [devices](../tasks/devices.md). Only workers that have them run the service. They show in RELAXED of `tucano ps`."),
    key("mount.path", "", Bounds::Free,
        "`[[mount]]`, once for each mount, at most 64: its absolute path in each container. Directories that the image does not \
         have are created. Only workers whose agents know the key take new processes."),
    key("mount.tmpfs", "", Bounds::Free,
        "A file system in memory of this size, at least 4KiB: empty at each start, writable by every user of the container, also \
         where the root is read-only. What is in it counts as memory; all of them together have at most `memory`."),
    key("mount.host", "", Bounds::Free,
        "In place of `tmpfs`: an absolute path of a directory of the worker, which its `agent.toml` lists in `host_paths`, or one \
         below. Only such workers run the service. It shows in RELAXED of `tucano ps`."),
    key("mount.image", "", Bounds::Free,
        "In place of `tmpfs`: an image whose files are mounted, read-only (see [images](../tasks/images.md#files-of-another-image)). \
         Named as `image` is: `sha256:...`, `name:tag` or `name@sha256:...` of a stored one, the same after `host/` of one in another \
         registry, or, for the command line, an archive or layout relative to the configuration. The deploy resolves it to a digest, \
         which belongs to the revision. Not on `/etc`. Only workers whose agents know the key take new processes."),
    key("mount.read_only", "false", Bounds::OneOf(&["true", "false"]),
        "Whether the container may not write to the directory of the worker. An image is read-only in any case."),
    key("volume.name", "", Bounds::Free,
        "`[[volume]]`, once for each volume, at most 8: a file system of each slot, which outlives its processes and its service \
         (see [volumes](../tasks/volumes.md)). Its name within the service, formed as a service's name. Only workers whose agents \
         know the key take new processes."),
    key("volume.path", "", Bounds::Free,
        "Its absolute path in the container. On first use it gets what the image has there."),
    key("volume.size", "", Bounds::Between("\"8MiB\"", "\"64TiB\""),
        "How much can be written to it. It grows while it is in use; a smaller size is refused."),
    key("volume.backup.to", "", Bounds::Free,
        "[Backups](../tasks/volume-backups.md) of the volume: the repository, `s3://bucket/prefix`, or `file:///directory` on the volume's \
         worker, which lists it in `backup_paths`."),
    key("volume.backup.password", "", Bounds::Free,
        "The secret with the repository's password. Without it nobody can read the backups."),
    key("volume.backup.every", "", Bounds::Free,
        "The time from one backup to the next, at least `\"60s\"`. Without it there are only those that `tucano volume backup` asks for."),
    key("volume.backup.keep", "14", Bounds::Between("1", "10000"),
        "How many backups stay: the newest ones."),
    key("volume.backup.dump", "", Bounds::Free,
        "A command in the container whose output is stored in place of the files, such as `[\"pg_dumpall\"]`."),
    key("volume.backup.load", "", Bounds::Free,
        "The command that reads such an output when a backup is restored, such as `[\"psql\"]`. It needs `dump`, and `dump` needs it."),
    key("volume.backup.freeze_at_most", "\"10s\"", Bounds::Between("\"0s\"", "\"10m\""),
        "How long the process may be frozen while the files that have changed meanwhile are stored. A backup that would take longer fails."),
    key("volume.backup.access_key", "", Bounds::Free,
        "The secret with the access key of an S3 bucket, as `ID:KEY`."),
    key("volume.backup.endpoint", "", Bounds::Free,
        "The URL of an S3 server that is not Amazon's."),
    key("volume.backup.region", "", Bounds::Free,
        "The region of an S3 bucket."),
    key("secret.name", "", Bounds::Free,
        "`[[secret]]`, once for each secret, at most 64: the name that `tucano secret set` gave it (see \
         [secrets](../tasks/secrets.md)). Only workers whose agents know the key take new processes."),
    key("secret.path", "", Bounds::Free,
        "The absolute path of its file in the container. Without it and without `env`: `/run/secrets/NAME`."),
    key("secret.env", "", Bounds::Free,
        "A variable that has its value, in place of a file: the weaker way. At most 64 KiB of UTF-8 without NUL bytes."),
    key("secret.mode", "\"0444\"", Bounds::Free,
        "The permissions of its file: three or four octal digits, as for chmod."),
    key("secret.uid", "0", Bounds::Between("0", "65535"),
        "Its owner in the container."),
    key("secret.gid", "0", Bounds::Between("0", "65535"),
        "Its group in the container."),
    key("placement.labels", "{}", Bounds::Free,
        "Labels that a worker must have, all of them: `{ zone = \"a\" }`."),
    key("placement.spread", "", Bounds::Free,
        "A label over whose values the processes are spread evenly, as far as there is room."),
    key("placement.everywhere", "false", Bounds::OneOf(&["true", "false"]),
        "Whether there is one process on each worker that fits, in place of `concurrency`."),
    key("placement.with", "[]", Bounds::Free,
        "Services that a worker must have a process of, each of them."),
    key("placement.apart_from", "[]", Bounds::Free,
        "Services that are never on one worker with this one."),
    key("health.http", "", Bounds::Free,
        "A path. A process is healthy when a GET of it is answered with a status below 400. Only one of `http`, `tcp` and \
         `exec` may be given; without any of them the image's own health check is used, else a TCP connect is tried."),
    key("health.host", "", Bounds::Free,
        "`Host` of that request. Without it: the first of `hosts`, else the process's address."),
    key("health.headers", "{}", Bounds::Free,
        "Further headers of that request."),
    key("health.port", "", Bounds::Free,
        "The port of the HTTP request, or of the TCP connect. Without it: `port`."),
    key("health.tcp", "", Bounds::OneOf(&["true", "false"]),
        "A process is healthy when it accepts a connection to `port`."),
    key("health.exec", "", Bounds::Free,
        "A command. A process is healthy when the command exits with 0 inside its container."),
    key("health.interval", "\"1s\"", Bounds::Between("\"10ms\"", "\"1h\""),
        "Time between two probes."),
    key("health.timeout", "\"1s\"", Bounds::Between("\"10ms\"", "\"10m\""),
        "A probe that takes longer has failed."),
    key("health.grace", "\"30s\"", Bounds::Between("\"10ms\"", "\"24h\""),
        "How long a process may take to answer its first probe, and how long a process that was healthy may go on failing, \
         before it is restarted."),
    key("health.image", "true", Bounds::OneOf(&["true", "false"]),
        "Whether the image's own health check (`HEALTHCHECK`) is used where none of `http`, `tcp`, `exec` and `port` is given. Its \
         times are used where `interval`, `timeout` and `grace` have their defaults."),
    key("needs", "[]", Bounds::Free,
        "Services that the processes may reach, by name and address, and no others: at most 128. They exist when this service is \
         deployed, and are not removed while it needs them. Only workers that can connect services run it."),
    key("nearest", "false", Bounds::OneOf(&["true", "false"]),
        "Connections to the service's address go to its processes on the same worker, where there are any, and otherwise to all. \
         Open connections stay where they are."),
    key("start_after", "[]", Bounds::Free,
        "Services that must have a healthy process before the first process of this one is started: at most 128. Later starts do not \
         wait."),
    key("drain", "", Bounds::Between("\"0s\"", "\"1h\""),
        "How long a process that is replaced or scaled away may finish its requests, at most, before SIGTERM: responses, \
         uploads, WebSockets. It is stopped as soon as the balancers say that none is in flight. Without it: the controller's \
         `drain`."),
    key("stop_timeout", "\"10s\"", Bounds::Between("\"0s\"", "\"1h\""),
        "Time between SIGTERM and SIGKILL when a process is stopped."),
    key("retries", "0", Bounds::Between("0", "100"),
        "Of a job: how often processes of a run may fail before the run has failed. With more than 0 a run whose worker is lost may do its \
         work twice."),
    key("deadline", "", Bounds::Between("\"1s\"", "\"720h\""),
        "Of a job: how long a run may take. Without it: as long as it takes."),
    key("completions", "1", Bounds::Between("1", "1000"),
        "Of a job: how many processes of a run have to succeed. Each has its number in `TUCANO_TASK`."),
    key("parallelism", "1", Bounds::Between("1", "1000"),
        "Of a job: how many of them run at once, at most."),
    key("schedule", "", Bounds::Free,
        "Of a job: when it runs, as crontab(5) has it, such as `0 3 * * *`, or `@daily`. Without it: when `tucano run` says so."),
    key("timezone", "\"UTC\"", Bounds::Free,
        "Of a job: the time zone of `schedule`, by its name in the IANA database, such as `America/Sao_Paulo`."),
    key("overlap", "\"skip\"", Bounds::Free,
        "Of a job: what happens at a tick while a run has not ended. `\"skip\"` leaves the tick out, `\"queue\"` lets one run wait, and \
         `\"replace\"` stops the earlier run."),
    key("catch_up", "\"1h\"", Bounds::Between("\"0s\"", "\"168h\""),
        "Of a job: how late a tick may be, and is still run. Of several that were missed the last one is. One that is at most a minute \
         late is always run."),
    key("before.args", "", Bounds::Free,
        "What [runs once per revision](../tasks/jobs.md) before its first process: arguments in place of `args`. Where it fails the \
         rollout does not begin."),
    key("before.timeout", "\"300s\"", Bounds::Between("\"1s\"", "\"720h\""),
        "How long that may take."),
    key("after.args", "", Bounds::Free,
        "What runs once per revision when its rollout is complete."),
    key("after.timeout", "\"300s\"", Bounds::Between("\"1s\"", "\"720h\""),
        "How long that may take."),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use tucano_api::{service::ServiceConfig, settings::parse};

    use super::*;
    use crate::reference::keys::{assert_complete, fields, setting};

    const NEEDED: [(&str, &str); 3] = [("name", "\"a\""), ("concurrency", "2"), ("port", "80")];

    /// Keys that only jobs have.
    const OF_JOBS: [&str; 8] = [
        "retries",
        "deadline",
        "completions",
        "parallelism",
        "schedule",
        "timezone",
        "overlap",
        "catch_up",
    ];

    fn read(name: &str, value: &str) -> Result<ServiceConfig, String> {
        if OF_JOBS.contains(&name) {
            let schedule = match name {
                "schedule" => "",
                _ => "schedule = \"@daily\"\n",
            };
            let text = format!("name = \"a\"\nkind = \"job\"\n{schedule}{name} = {value}\n");
            let config = parse("service.toml", &text).map_err(|error| error.to_string());
            return config.map(with_defaults);
        }
        if let Some((hook, "timeout")) = name
            .split_once('.')
            .filter(|(it, _)| ["before", "after"].contains(it))
        {
            let text = format!(
                "name = \"a\"\nconcurrency = 2\nport = 80\n[{hook}]\nargs = [\"x\"]\ntimeout = {value}\n"
            );
            return parse("service.toml", &text).map_err(|error| error.to_string());
        }
        let mut text = String::new();
        let is_everywhere = (name, value) == ("placement.everywhere", "true");
        for (needed, usual) in NEEDED {
            if is_everywhere && needed == "concurrency" {
                continue;
            }
            let value = if needed == name { value } else { usual };
            text += &format!("{needed} = {value}\n");
        }
        if let Some(key) = name.strip_prefix("volume.") {
            let volume = [("name", "\"a\""), ("path", "\"/x\""), ("size", "\"8MiB\"")];
            text += "[[volume]]\n";
            for (needed, usual) in volume {
                let value = if needed == key { value } else { usual };
                text += &format!("{needed} = {value}\n");
            }
            if key.starts_with("backup.") {
                let needed = [("backup.to", "\"s3://abc\""), ("backup.password", "\"a\"")];
                for (needed, usual) in needed.into_iter().filter(|(needed, _)| *needed != key) {
                    text += &format!("{needed} = {usual}\n");
                }
                text += &format!("{key} = {value}\n");
            }
        } else if let Some(key) = name.strip_prefix("mount.") {
            let what = match key {
                "read_only" => "host = \"/y\"",
                _ => "tmpfs = \"1MiB\"",
            };
            text += &format!("[[mount]]\npath = \"/x\"\n{what}\n{key} = {value}\n");
        } else if let Some(key) = name.strip_prefix("secret.") {
            text += "[[secret]]\n";
            if key != "name" {
                text += "name = \"a\"\n";
            }
            text += &format!("{key} = {value}\n");
        } else if let Some(key) = name.strip_prefix("file.") {
            text += &format!("{FILE}{key} = {value}\n");
        } else if let Some(key) = name.strip_prefix("ports.<name>") {
            text += &match key {
                "" => format!("[ports]\na = {value}\n"),
                ".port" => format!("[ports.a]\nport = {value}\n"),
                _ => format!("[ports.a]\nport = 81\n{} = {value}\n", &key[1..]),
            };
        } else if !NEEDED.iter().any(|(needed, _)| *needed == name) {
            text += &setting(name, value);
        }
        parse("service.toml", &text).map_err(|error| error.to_string())
    }

    /// What keys of jobs mean where they are absent.
    fn with_defaults(config: ServiceConfig) -> ServiceConfig {
        ServiceConfig {
            retries: Some(config.run_retries()),
            completions: Some(config.run_completions()),
            parallelism: Some(config.run_parallelism()),
            timezone: config.timezone.or_else(|| Some("UTC".to_owned())),
            overlap: Some(config.overlap.unwrap_or_default()),
            catch_up: config
                .catch_up
                .or(Some(tucano_api::units::Span::secs(3600))),
            ..config
        }
    }

    /// A file, to which a key is added.
    const FILE: &str = "[[file]]\npath = \"/x\"\ncontent = \"\"\n";

    /// What a default leaves as it is.
    fn usual(name: &str) -> ServiceConfig {
        if OF_JOBS.contains(&name) {
            return read("retries", "0").unwrap();
        }
        match name.split_once('.') {
            Some((hook @ ("before" | "after"), _)) => {
                read(&format!("{hook}.timeout"), "\"5m\"").unwrap()
            }
            Some(("file", _)) => read("file.gid", "0").unwrap(),
            Some(("secret", _)) => read("secret.gid", "0").unwrap(),
            Some(("mount", _)) => read("mount.read_only", "false").unwrap(),
            Some(("ports", _)) => read("ports.<name>", "81").unwrap(),
            Some(("volume", _)) => read("volume.backup.keep", "14").unwrap(),
            _ => read("port", "80").unwrap(),
        }
    }

    #[test]
    fn every_key_is_described() {
        let own = fields("api/src", "ServiceConfig");
        assert_complete(
            &KEYS,
            "",
            &own,
            &[
                "health",
                "file",
                "mount",
                "placement",
                "volume",
                "secret",
                "ports",
                "before",
                "after",
            ],
        );
        for hook in ["before.", "after."] {
            assert_complete(&KEYS, hook, &fields("api/src", "Hook"), &[]);
        }
        let placement = fields("api/src", "Placement");
        assert_complete(&KEYS, "placement.", &placement, &[]);
        let port = fields("api/src", "PortTable");
        assert_complete(&KEYS, "ports.<name>.", &port, &[]);
        let mount = fields("api/src", "Mount");
        assert_complete(&KEYS, "mount.", &mount, &["digest"]);
        let volume = fields("api/src", "Volume");
        assert_complete(&KEYS, "volume.", &volume, &["backup"]);
        let backup = fields("api/src", "Backup");
        assert_complete(&KEYS, "volume.backup.", &backup, &[]);
        let secret = fields("api/src", "SecretRef");
        assert_complete(&KEYS, "secret.", &secret, &["version"]);
        let file = fields("api/src", "ConfigFile");
        assert_complete(&KEYS, "file.", &file, &[]);
        let health = fields("api/src", "Health");
        assert_complete(&KEYS, "health.", &health, &["of_image"]);
    }

    #[test]
    fn defaults_are_the_defaults() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!(
                read(key.name, key.default).unwrap(),
                usual(key.name),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn bounds_are_the_bounds() {
        for key in KEYS {
            for value in key.bounds.accepted() {
                read(key.name, value).unwrap();
            }
            for value in key.bounds.refused() {
                assert!(read(key.name, &value).is_err(), "{} = {value}", key.name);
            }
        }
    }

    #[test]
    fn the_effect_of_a_change_of_every_key_is_described() {
        for key in KEYS {
            assert_ne!(change(key.name), "", "{}", key.name);
        }
        assert_eq!(change("health.interval"), Effect::Probe.describe());
        assert_eq!(change("memory"), Effect::Resize.describe());
    }
}
