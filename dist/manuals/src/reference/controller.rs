//! `ctl.toml`: the controller's configuration.

use super::keys::{Bounds, Key, describe};

const RESTART: &str = "counts after a restart of the controller";
const AT_ONCE: &str = "";

const HEAD: &str = "\
# ctl.toml

The controller's configuration, `/etc/tucano/ctl.toml` in packages: TOML. An unknown key is an error
that names its line. `tucano_ctld --config ctl.toml --check` validates the file.

`systemctl reload tucano-ctl`, SIGHUP or `POST /v1/config/reload` read it again. A wrong file is
refused as a whole, and the old one stays in force. Unless a key says otherwise, a change counts at
once.

```toml
data_dir = \"/var/lib/tucano/ctl\"
domain = \"example.org\"
token_file = \"/etc/tucano/token\"
agent_token_file = \"/etc/tucano/agent-token\"

[api]
listen = [\"127.0.0.1:7070\", \"10.0.0.1:7070\"]
names = [\"ctl.example.org\"]

[balancer]
listen = [\"0.0.0.0:80\"]

[alerts]
webhooks = [\"http://10.0.0.5:9000/tucano\"]

[[topology]]
kind = \"ctl\"
ip = \"10.0.0.1\"

[[topology]]
kind = \"worker\"
ip = \"10.0.0.11\"
name = \"w1\"
restart = [\"ssh\", \"hypervisor\", \"reboot-vm\", \"w1\"]
```

";

pub(super) fn page() -> String {
    format!(
        "{HEAD}## The cluster\n\n{}## The programs\n\n{}## `[[topology]]`: the machines\n\nOne entry for each machine; exactly \
         one is of the kind `ctl`.\n\n{}## `[[registry]]`: other registries\n\nOne entry for each registry that images may be \
         pulled from.\n\n{}## `[limits]`: bounds\n\nEvery bound on what the controller takes in.\n\n{}",
        describe(&CLUSTER),
        describe(&PROGRAMS),
        describe(&TOPOLOGY),
        describe(&REGISTRY),
        describe(&LIMITS)
    )
}

const fn key(
    name: &'static str,
    default: &'static str,
    bounds: Bounds,
    change: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        default,
        bounds,
        meaning,
        change,
    }
}

#[rustfmt::skip]
const CLUSTER: [Key; 20] = [
    key("data_dir", "\"/var/lib/tucano/ctl\"", Bounds::Free, RESTART,
        "Where the state, the images and the cluster's authority are kept."),
    key("secret_key_file", "", Bounds::Free, RESTART,
        "The file with the keys that secrets are encrypted with: `secrets.key` in `data_dir` where absent. It is created with the \
         first secret, for its owner only, and is in no backup of the database: keep a copy elsewhere."),
    key("domain", "\"localhost\"", Bounds::Free, AT_ONCE,
        "Each service is reached at `<name>.<domain>`."),
    key("service_subnet", "\"100.80.0.0/16\"", Bounds::Free, AT_ONCE,
        "The network that services have their addresses in, of /8 to /28: one that nothing else uses, neither nodes nor the `subnet` \
         of the agents. Another one gives every service another address, and ends the connections between services."),
    key("lease", "\"6s\"", Bounds::Between("\"100ms\"", "\"1h\""), AT_ONCE,
        "A worker that has not reported for this long is not alive."),
    key("drain", "\"30s\"", Bounds::Between("\"0s\"", "\"1h\""), AT_ONCE,
        "How long a process that gets no new requests may finish those in flight, at most: it is stopped as soon as the \
         balancers say that there are none. A service's own `drain` takes precedence."),
    key("rebalance_after", "\"30s\"", Bounds::Between("\"0s\"", "\"24h\""), AT_ONCE,
        "How long the workers must have been stable before processes are moved to even them out."),
    key("restart_attempts", "3", Bounds::Between("0", "100"), AT_ONCE,
        "How often the `restart` command of a worker that is missing is tried."),
    key("restart_backoff", "\"5s\"", Bounds::Between("\"1ms\"", "\"1h\""), AT_ONCE,
        "Time between the first two tries; it doubles with each."),
    key("restart_grace", "\"60s\"", Bounds::Between("\"1ms\"", "\"24h\""), AT_ONCE,
        "How long a worker may take to report after a `restart` that succeeded."),
    key("restart_timeout", "\"60s\"", Bounds::Between("\"1ms\"", "\"24h\""), AT_ONCE,
        "How long a `restart` command may take."),
    key("crash_alert_after", "3", Bounds::Between("1", "1000"), AT_ONCE,
        "How many ends of a process in a row make an alert."),
    key("recovered_after", "\"30s\"", Bounds::Between("\"0s\"", "\"24h\""), AT_ONCE,
        "How long a process must have been healthy before its crashes count as over."),
    key("revisions_kept", "5", Bounds::Between("1", "1000"), AT_ONCE,
        "How many revisions of each service are kept, with their images, to roll back to."),
    key("runs_kept", "20", Bounds::Between("1", "1000"), AT_ONCE,
        "How many [runs](../tasks/jobs.md) of each job are kept after their end, with the last lines of their output. Those of a \
         service's hooks are kept with its revisions."),
    key("token", "", Bounds::Free, AT_ONCE,
        "The sysadmin's token. Needed where the API listens elsewhere than on loopback."),
    key("token_file", "", Bounds::Free, AT_ONCE,
        "A file that holds it instead."),
    key("agent_token", "", Bounds::Free, AT_ONCE,
        "The agents' token, the same as in each `agent.toml`."),
    key("agent_token_file", "", Bounds::Free, AT_ONCE,
        "A file that holds it instead."),
    key("agent_token_overlap", "\"24h\"", Bounds::Between("\"0s\"", "\"720h\""), AT_ONCE,
        "How long the previous `agent_token` is accepted after a reload."),
];

#[rustfmt::skip]
const PROGRAMS: [Key; 9] = [
    key("api.listen", "\"127.0.0.1:7070\"", Bounds::Free, RESTART,
        "Where the API listens: an address, or a list of them."),
    key("api.tls", "", Bounds::OneOf(&["\"on\"", "\"off\""]), RESTART,
        "Whether addresses that are not loopback speak TLS. See [TLS](../operations/tls.md)."),
    key("api.names", "[]", Bounds::Free, RESTART,
        "Names and addresses by which the API is reached, beside those that the controller knows: they are put into its \
         certificate."),
    key("api.balancers", "[]", Bounds::Free, AT_ONCE,
        "Names of the balancers on other machines that may follow the routes. See [the balancer](balancer.md)."),
    key("balancer.listen", "\"127.0.0.1:8080\"", Bounds::Free, RESTART,
        "Where users reach the services: an address, or a list of them."),
    key("balancer.spawn", "true", Bounds::OneOf(&["true", "false"]), RESTART,
        "Whether the controller starts the balancer. In packages systemd does."),
    key("balancer.program", "", Bounds::Free, RESTART,
        "The balancer's program. Without it: `tucano_balancerd` beside the controller's."),
    key("balancer.arguments", "[]", Bounds::Free, RESTART,
        "Further flags of the balancer; see [commands](commands.md)."),
    key("alerts.webhooks", "[]", Bounds::Free, AT_ONCE,
        "Addresses to which each alert is posted as JSON."),
];

#[rustfmt::skip]
const TOPOLOGY: [Key; 5] = [
    key("topology.kind", "", Bounds::Free, AT_ONCE,
        "`\"ctl\"` or `\"worker\"`."),
    key("topology.ip", "", Bounds::Free, AT_ONCE,
        "The machine's address."),
    key("topology.name", "", Bounds::Free, AT_ONCE,
        "The machine's name. Without it: its address."),
    key("topology.labels", "{}", Bounds::Free, AT_ONCE,
        "Labels of a worker, such as `{ zone = \"a\", gpu = \"l4\" }`, at most 64. Services choose workers by them with \
         `placement`."),
    key("topology.restart", "", Bounds::Free, AT_ONCE,
        "A command that restarts a worker which is missing: a list of program and arguments, or a line for `sh -c`. It finds \
         `TUCANO_NODE` and `TUCANO_NODE_IP` in its environment."),
];

#[rustfmt::skip]
const REGISTRY: [Key; 9] = [
    key("registry.host", "", Bounds::Free, AT_ONCE,
        "Host and port, as image references have it: `\"registry.example:5000\"`."),
    key("registry.address", "", Bounds::Free, AT_ONCE,
        "Where the registry is, if not at `host`: `\"registry-1.docker.io\"` for `\"docker.io\"`."),
    key("registry.user", "", Bounds::Free, AT_ONCE,
        "The user to log in as."),
    key("registry.password", "", Bounds::Free, AT_ONCE,
        "The user's password."),
    key("registry.password_file", "", Bounds::Free, AT_ONCE,
        "A file that holds it instead."),
    key("registry.token", "", Bounds::Free, AT_ONCE,
        "A bearer token, in place of user and password."),
    key("registry.token_file", "", Bounds::Free, AT_ONCE,
        "A file that holds it instead."),
    key("registry.ca_file", "", Bounds::Free, AT_ONCE,
        "Certificates of further authorities, in PEM, beside the system's."),
    key("registry.plain_http", "false", Bounds::Free, AT_ONCE,
        "Whether the registry is spoken to without TLS."),
];

#[rustfmt::skip]
const LIMITS: [Key; 36] = [
    key("limits.image_bytes", "\"8GiB\"", Bounds::Between("\"1KiB\"", "\"64TiB\""), AT_ONCE,
        "Largest image archive as it is sent, and largest blob of the registry. The registry's counts after a restart."),
    key("limits.image_document_bytes", "\"4MiB\"", Bounds::Between("\"1KiB\"", "\"1GiB\""), RESTART,
        "Largest manifest, index or configuration of an image."),
    key("limits.image_layer_bytes", "\"32GiB\"", Bounds::Between("\"1KiB\"", "\"64TiB\""), RESTART,
        "Largest sum of the files of a layer."),
    key("limits.image_layer_entries", "2000000", Bounds::Between("1", "4294967296"), RESTART,
        "Most entries of a layer."),
    key("limits.image_layer_xattr_bytes", "\"64MiB\"", Bounds::Between("\"1KiB\"", "\"1TiB\""), RESTART,
        "Largest sum of the extended attributes of a layer."),
    key("limits.image_layers", "128", Bounds::Between("1", "10000"), RESTART,
        "Most layers of an image."),
    key("limits.registry_uploads", "64", Bounds::Between("1", "10000"), RESTART,
        "Most uploads to the registry at once."),
    key("limits.registry_upload_idle", "\"10m\"", Bounds::Between("\"10ms\"", "\"24h\""), RESTART,
        "How long an upload to the registry may rest before it is given up."),
    key("limits.registry_repositories", "20000", Bounds::Between("1", "1000000"), RESTART,
        "Most repositories of the registry."),
    key("limits.registry_tags", "10000", Bounds::Between("1", "1000000"), RESTART,
        "Most tags of a repository, and most manifests."),
    key("limits.registry_untagged_kept", "\"1h\"", Bounds::Between("\"10ms\"", "\"8760h\""), RESTART,
        "How long the registry keeps what no tag leads to and no service uses."),
    key("limits.pull", "\"30m\"", Bounds::Between("\"10ms\"", "\"24h\""), AT_ONCE,
        "Longest time that pulling an image from another registry may take."),
    key("limits.config_bytes", "\"256KiB\"", Bounds::Between("\"64B\"", "\"1MiB\""), AT_ONCE,
        "Largest configuration of a service."),
    key("limits.services", "20000", Bounds::Between("1", "1000000"), AT_ONCE,
        "Most services."),
    key("limits.application_services", "64", Bounds::Between("1", "1000"), AT_ONCE,
        "Most services that are deployed in one request, as an application."),
    key("limits.uploads", "4", Bounds::Between("1", "1000"), AT_ONCE,
        "Most deploys with an archive at once."),
    key("limits.prefetching_agents", "5", Bounds::Between("0", "1000"), AT_ONCE,
        "Up to this many agents unpack an image's layers while it is still uploaded; where there are more, they begin when it \
         is whole."),
    key("limits.body_idle", "\"60s\"", Bounds::Between("\"10ms\"", "\"1h\""), AT_ONCE,
        "Longest silence in a request's body."),
    key("limits.wait", "\"1h\"", Bounds::Between("\"10ms\"", "\"24h\""), AT_ONCE,
        "Longest time that `wait=true` may be asked for."),
    key("limits.report_bytes", "\"8MiB\"", Bounds::Between("\"1KiB\"", "\"1GiB\""), AT_ONCE,
        "Largest report of an agent."),
    key("limits.connections", "16384", Bounds::Between("8", "100000"), RESTART,
        "Most connections to the API at once."),
    key("limits.connections_per_peer", "256", Bounds::Between("8", "100000"), RESTART,
        "Most connections to the API from one address, or from one IPv6 /64."),
    key("limits.worker_connections", "8192", Bounds::Between("0", "100000"), RESTART,
        "Most connections from workers' addresses in addition to `limits.connections`."),
    key("limits.body_time", "\"60s\"", Bounds::Between("\"10ms\"", "\"1h\""), RESTART,
        "Longest time for a request's body; every 4 KiB that arrive extend it by a second."),
    key("limits.header_timeout", "\"30s\"", Bounds::Between("\"10ms\"", "\"1h\""), RESTART,
        "Longest time for a request's head to arrive, and for a connection to stay idle."),
    key("limits.agent_timeout", "\"5s\"", Bounds::Between("\"10ms\"", "\"10m\""), AT_ONCE,
        "Longest time for an agent to take its desired set, or to begin its answer."),
    key("limits.restart_output_bytes", "\"1KiB\"", Bounds::Between("\"0B\"", "\"1MiB\""), AT_ONCE,
        "How much of a `restart` command's output is kept."),
    key("limits.webhook_timeout", "\"5s\"", Bounds::Between("\"10ms\"", "\"10m\""), AT_ONCE,
        "Longest time for a webhook to answer."),
    key("limits.webhook_attempts", "5", Bounds::Between("1", "100"), AT_ONCE,
        "Most tries to deliver an alert."),
    key("limits.webhook_queue", "1000", Bounds::Between("1", "1000000"), AT_ONCE,
        "Most alerts that wait for one webhook; the oldest are dropped."),
    key("limits.log_lines", "10000", Bounds::Between("1", "10000000"), AT_ONCE,
        "Most lines of logs that one request may ask for."),
    key("limits.log_line_bytes", "\"64KiB\"", Bounds::Between("\"80B\"", "\"16MiB\""), AT_ONCE,
        "Longest line of a service's logs, or of logs as JSON: a longer one is cut into pieces of this length."),
    key("limits.secrets", "10000", Bounds::Between("1", "1000000"), AT_ONCE,
        "Most secrets."),
    key("limits.secret_bytes", "\"1MiB\"", Bounds::Between("\"1B\"", "\"1MiB\""), AT_ONCE,
        "Largest value of a secret."),
    key("limits.sessions", "64", Bounds::Between("1", "4096"), RESTART,
        "Most commands that `exec` runs in containers at once."),
    key("limits.database_bytes", "\"4GiB\"", Bounds::Between("\"256KiB\"", "\"16TiB\""), RESTART,
        "Largest database."),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::path::Path;

    use tucano_ctl::Config;

    use super::*;
    use crate::reference::keys::{assert_complete, fields, setting};

    fn parse(more: &str) -> Result<Config, String> {
        let text = format!("{more}\n[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.1\"\n");
        Config::parse("ctl.toml", Path::new("/"), &text).map_err(|error| error.to_string())
    }

    fn read(name: &str, value: &str) -> Result<Config, String> {
        parse(&setting(name, value))
    }

    /// The keys that a file has once.
    fn single() -> impl Iterator<Item = Key> {
        CLUSTER.into_iter().chain(PROGRAMS).chain(LIMITS)
    }

    #[test]
    fn every_key_is_described() {
        let file = "ctl/src/config_mgr";
        let tables = [
            "api", "balancer", "alerts", "limits", "registry", "topology",
        ];
        assert_complete(&CLUSTER, "", &fields(file, "File"), &tables);
        assert_complete(&PROGRAMS, "api.", &fields(file, "Api"), &[]);
        assert_complete(&PROGRAMS, "balancer.", &fields(file, "Balancer"), &[]);
        assert_complete(&PROGRAMS, "alerts.", &fields(file, "Alerts"), &[]);
        assert_complete(&TOPOLOGY, "topology.", &fields(file, "Node"), &[]);
        let registries = fields(file, "Entry");
        assert_complete(&REGISTRY, "registry.", &registries, &[]);
        let limits = fields(file, "Limits");
        assert_complete(&LIMITS, "limits.", &limits, &[]);
    }

    #[test]
    fn defaults_are_the_defaults() {
        let usual = parse("").unwrap();
        for key in single().filter(|key| !key.default.is_empty()) {
            assert_eq!(read(key.name, key.default).unwrap(), usual, "{}", key.name);
        }
    }

    #[test]
    fn bounds_are_the_bounds() {
        for key in single() {
            for value in key.bounds.accepted() {
                read(key.name, value).unwrap();
            }
            for value in key.bounds.refused() {
                assert!(read(key.name, &value).is_err(), "{} = {value}", key.name);
            }
        }
    }
}
