//! Databases on volumes: what they have acknowledged is there after whatever ends.

use std::fs;

use tucano_testkit::needs;
use tucano_tests::{
    CLUSTER, Cluster, Options,
    databases::{self, DATABASES},
};

use crate::exec::Shell;

/// Notes each start, and makes the database at the first.
pub(crate) const POSTGRES: &str = r#"name = "db"
concurrency = 1
port = 5432
memory = "256MiB"
user = "postgres"
args = ["/bin/sh", "-ec", """
[ -s /data/PG_VERSION ] || initdb --auth trust --pgdata /data
echo "$TUCANO_PROCESS $TUCANO_SLOT" >> /data/starts
exec postgres -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp -c shared_buffers=16MB
"""]
[[volume]]
name = "data"
path = "/data"
size = "256MiB"
"#;

const REDIS: &str = r#"name = "cache"
concurrency = 1
port = 6379
memory = "64MiB"
user = "redis"
args = ["redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"]
[[volume]]
name = "data"
path = "/var/lib/redis"
size = "64MiB"
"#;

/// The only process of a service, once it is healthy and routed.
fn healthy(cluster: &Cluster, service: &str) -> (String, String) {
    let processes = cluster.wait_for_healthy(service, 1);
    let [process] = processes.as_slice() else {
        panic!("{processes:?}");
    };
    (process.report.id.to_string(), process.node.to_string())
}

/// The output of a statement, once the database takes it.
fn sql(shell: &Shell, statement: &str) -> String {
    let script = format!("psql -h /tmp -U postgres -qtA -c \"{statement}\"");
    shell.0.wait(statement, || {
        let said = shell.exec("db", &script, b"");
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        said.status.success().then_some(text)
    })
}

fn redis(shell: &Shell, words: &str) -> String {
    shell.0.wait(words, || {
        let said = shell.exec("cache", &format!("redis-cli {words}"), b"");
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        (said.status.success() && !text.contains("refused")).then_some(text)
    })
}

/// First processes of PostgreSQL on all workers that are up.
fn writers(cluster: &Cluster) -> usize {
    let workers = (0..3).filter(|index| cluster.worker(*index).pid().is_ok());
    workers
        .flat_map(|index| cluster.running_on(index))
        .filter(|it| it.arguments.starts_with("postgres -D /data "))
        .count()
}

/// Inserts a row and checks that all are there.
fn insert(shell: &Shell, rows: &mut u32) {
    assert!(writers(&shell.0) <= 1);
    *rows += 1;
    sql(
        shell,
        &format!("INSERT INTO rows VALUES ({rows}) ON CONFLICT DO NOTHING"),
    );
    assert_eq!(sql(shell, "SELECT count(*) FROM rows"), rows.to_string());
}

fn index_of(worker: &str) -> usize {
    worker.trim_start_matches('w').parse::<usize>().unwrap() - 1
}

#[test]
fn postgresql_keeps_every_committed_row_whatever_ends() {
    if !needs(&CLUSTER) || !needs(&DATABASES) {
        return;
    }
    let mut shell = Shell(Cluster::start(&Options::default()));
    shell.0.deploy_healthy(POSTGRES, &databases::image());
    let (_, node) = healthy(&shell.0, "db");
    sql(&shell, "CREATE TABLE rows (id int PRIMARY KEY)");
    sql(&shell, "INSERT INTO rows SELECT generate_series(1, 10000)");
    let mut rows = 10_000;
    insert(&shell, &mut rows);

    // Another revision, on the same worker.
    let (before, _) = healthy(&shell.0, "db");
    shell.0.patch("db", "{\"env\": {\"PGTZ\": \"UTC\"}}");
    shell.0.wait("the new process", || {
        assert!(writers(&shell.0) <= 1);
        let processes = shell.0.processes("db");
        let new = processes.iter().find(|it| it.report.id.as_str() != before);
        new.filter(|it| it.routed).map(drop)
    });
    assert_eq!(healthy(&shell.0, "db").1, node);
    insert(&shell, &mut rows);

    // The process, the agent, the controller.
    let index = index_of(&node);
    let running = shell.0.running_on(index);
    let postgres = running
        .iter()
        .find(|it| it.arguments.starts_with("postgres -D"));
    postgres.unwrap().kill();
    insert(&shell, &mut rows);
    shell.0.kill_agent(index);
    shell.0.start_agent(index);
    insert(&shell, &mut rows);
    shell.0.kill_ctld();
    shell.0.start_ctld();
    insert(&shell, &mut rows);

    // The worker: the process waits for it, and says so.
    shell.0.power_off(index);
    let waiting = format!("volume db/data/1 is on {node}");
    shell.0.wait("the reason", || {
        assert_eq!(writers(&shell.0), 0);
        let said = shell.tucano(&["ps", "db"]).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.contains(&waiting).then_some(())
    });
    shell.0.wait("the alert", || {
        let alerts = shell.0.alerts().all().into_iter();
        let mut messages = alerts.map(|alert| alert.message);
        messages
            .any(|message| message.contains(&waiting))
            .then_some(())
    });
    shell.0.kill_ctld();
    shell.0.start_ctld();
    shell.0.boot(index);
    shell.0.start_agent(index);
    insert(&shell, &mut rows);
    assert_eq!(healthy(&shell.0, "db").1, node);

    // The service: its volume stays, and is found again.
    let removed = shell.tucano(&["rm", "db"]).output().unwrap();
    let said = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(said.contains("kept: db/data/1"), "{removed:?}");
    shell.0.deploy_healthy(POSTGRES, &databases::image());
    assert_eq!(healthy(&shell.0, "db").1, node);
    insert(&shell, &mut rows);
    let starts = shell.exec("db", "cat /data/starts", b"");
    let starts = String::from_utf8_lossy(&starts.stdout).into_owned();
    assert!(starts.lines().all(|line| line.ends_with(" 1")), "{starts}");
    assert!(starts.lines().count() >= 5, "{starts}");

    // And goes when it is removed.
    let removed = shell
        .tucano(&["rm", "db", "--volumes", "--yes"])
        .output()
        .unwrap();
    assert!(removed.status.success(), "{removed:?}");
    shell.0.wait("the volume's end", || {
        let said = shell.tucano(&["volume", "ls", "--json"]).output().unwrap();
        (said.stdout.trim_ascii() == b"[]").then_some(())
    });
    let left = fs::read_dir(shell.0.agent_data(index).join("volumes")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name != "db"), "{left:?}");
}

#[test]
fn redis_keeps_what_it_has_acknowledged() {
    if !needs(&CLUSTER) || !needs(&DATABASES) {
        return;
    }
    let mut shell = Shell(Cluster::start(&Options::default()));
    shell.0.deploy_healthy(REDIS, &databases::image());
    let (_, node) = healthy(&shell.0, "cache");
    assert_eq!(redis(&shell, "set first 1"), "OK");
    let index = index_of(&node);
    let running = shell.0.running_on(index);
    let server = running
        .iter()
        .find(|it| it.arguments.starts_with("redis-server"));
    server.unwrap().kill();
    assert_eq!(redis(&shell, "get first"), "1");
    assert_eq!(redis(&shell, "set second 2"), "OK");
    shell.0.power_off(index);
    shell.0.boot(index);
    shell.0.start_agent(index);
    assert_eq!(redis(&shell, "mget first second"), "1\n2");
    assert_eq!(healthy(&shell.0, "cache").1, node);
}
