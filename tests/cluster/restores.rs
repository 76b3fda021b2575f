//! Volumes that are restored from backups, on another worker than the one that is lost.

use std::{io::Write, path::Path, process::Output, process::Stdio};

use tucano_testkit::needs;
use tucano_tests::{
    CLUSTER, Cluster, Options,
    databases::{self, DATABASES},
};

use crate::exec::{Shell, TOOLS, with_a_shell};

/// A cluster whose workers may have repositories below a directory that all of them see, as of a network file system.
fn start(repositories: &Path) -> Shell {
    let options = Options::default();
    let shell = Shell(Cluster::start(&Options {
        agent_settings: format!(
            "backup_paths = [\"{}\"]\n{}",
            repositories.display(),
            options.agent_settings
        ),
        ..options
    }));
    let mut set = shell
        .tucano(&["secret", "set", "backup-password"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = set.stdin.take().unwrap();
    input.write_all(b"of the repository").unwrap();
    drop(input);
    assert!(set.wait().unwrap().success());
    shell
}

fn backup(repositories: &Path) -> String {
    let to = repositories.join("backups");
    format!(
        "[volume.backup]\nevery = \"24h\"\nto = \"file://{}\"\npassword = \"backup-password\"\n",
        to.display()
    )
}

fn run(shell: &Shell, words: &[&str]) -> Output {
    shell.tucano(words).output().unwrap()
}

fn done(shell: &Shell, words: &[&str]) -> String {
    let output = run(shell, words);
    assert!(
        output.status.success(),
        "{words:?}: {output:?}\n{}",
        shell.0.logs()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The only process's worker, once it is healthy and routed.
fn worker(shell: &Shell, service: &str) -> usize {
    let processes = shell.0.wait_for_healthy(service, 1);
    let name = processes[0].node.to_string();
    name.trim_start_matches('w').parse::<usize>().unwrap() - 1
}

fn name(index: usize) -> String {
    format!("w{}", index + 1)
}

/// What a script prints in the container, once it succeeds.
fn output(shell: &Shell, service: &str, script: &str) -> String {
    shell.0.wait(script, || {
        let said = shell.exec(service, script, b"");
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        said.status.success().then_some(text)
    })
}

/// Powers the worker off, and waits until the process is said to wait for it.
fn lose(shell: &mut Shell, service: &str, volume: &str) -> usize {
    let lost = worker(shell, service);
    shell.0.power_off(lost);
    let waiting = format!("volume {volume} is on {}", name(lost));
    shell.0.wait("the reason", || {
        let said = run(shell, &["ps", service]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.contains(&waiting).then_some(())
    });
    lost
}

/// Restores the volume of a lost worker on another one.
fn restore(shell: &Shell, volume: &str, lost: usize) -> usize {
    let other = (lost + 1) % 3;
    let refused = run(shell, &["volume", "restore", volume, "--on", &name(other)]);
    assert!(!refused.status.success(), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--lost"), "{said}");
    let (from, to) = (name(lost), name(other));
    let words = [
        "volume", "restore", volume, "--lost", &from, "--on", &to, "--yes",
    ];
    let said = done(shell, &words);
    assert!(said.contains(&format!("is restored on {to}")), "{said}");
    other
}

/// The worker comes back: what it has is kept, and never used.
fn comes_back(shell: &mut Shell, service: &str, volume: &str, lost: usize, at: usize) {
    shell.0.boot(lost);
    shell.0.start_agent(lost);
    shell.0.wait_for_alive(3);
    shell.0.wait("the orphan", || {
        let said = run(shell, &["volume", "ls"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let mut lines = said.lines();
        lines
            .any(|line| {
                line.contains(volume) && line.contains(&name(lost)) && line.contains("orphan")
            })
            .then_some(())
    });
    assert_eq!(worker(shell, service), at);
    assert_eq!(shell.0.processes(service).len(), 1);
}

#[test]
fn the_files_of_a_lost_worker_are_restored_on_another_one() {
    if !needs(&CLUSTER) || !needs(&TOOLS) {
        return;
    }
    let repositories = tempfile::tempdir().unwrap();
    let mut shell = start(repositories.path());
    let service = format!(
        "name = \"hello\"\nconcurrency = 1\nport = 8080\nmemory = \"64MiB\"\nuser = \"0\"\n\
         [[volume]]\nname = \"data\"\npath = \"/var/data\"\nsize = \"64MiB\"\n{}",
        backup(repositories.path())
    );
    shell.0.deploy_healthy(&service, &with_a_shell(&shell.0));
    let volume = "hello/data/1";
    output(
        &shell,
        "hello",
        "cd /var/data && busybox mkdir -m 751 a && echo first > a/rows && busybox ln -sf a/rows link && busybox sync",
    );
    let list = "cd /var/data && busybox find . | busybox sort | busybox xargs busybox stat -c '%n %a %u %g %N'; busybox cat a/rows";
    let before = output(&shell, "hello", list);
    let said = done(&shell, &["volume", "backup", volume]);
    assert!(said.contains("is backed up"), "{said}");
    output(
        &shell,
        "hello",
        "echo later >> /var/data/a/rows; busybox sync",
    );
    let lost = lose(&mut shell, "hello", volume);
    let other = restore(&shell, volume, lost);
    assert_eq!(worker(&shell, "hello"), other);
    assert_eq!(output(&shell, "hello", list), before);
    comes_back(&mut shell, "hello", volume, lost, other);
    assert_eq!(output(&shell, "hello", list), before);
}

#[test]
fn a_dumped_database_of_a_lost_worker_is_loaded_on_another_one() {
    if !needs(&CLUSTER) || !needs(&DATABASES) {
        return;
    }
    let repositories = tempfile::tempdir().unwrap();
    let mut shell = start(repositories.path());
    let commands = "dump = [\"pg_dump\", \"-h\", \"/tmp\", \"-U\", \"postgres\", \"postgres\"]\n\
        load = [\"psql\", \"-h\", \"/tmp\", \"-U\", \"postgres\", \"-v\", \"ON_ERROR_STOP=1\", \"-q\"]\n";
    // A database that starts up takes connections, and refuses statements.
    let health = "health = { exec = [\"pg_isready\", \"-h\", \"/tmp\"] }\n[[volume]]";
    let service = crate::volumes::POSTGRES.replace("[[volume]]", health);
    let service = format!("{service}{}{commands}", backup(repositories.path()));
    shell.0.deploy_healthy(&service, &databases::image());
    let sql = |shell: &Shell, statement: &str| {
        let script = format!("psql -h /tmp -U postgres -qtA -c \"{statement}\"");
        output(shell, "db", &script)
    };
    sql(
        &shell,
        "CREATE TABLE IF NOT EXISTS rows (id int PRIMARY KEY)",
    );
    sql(
        &shell,
        "INSERT INTO rows SELECT generate_series(1, 10000) ON CONFLICT DO NOTHING",
    );
    let volume = "db/data/1";
    let said = done(&shell, &["volume", "backup", volume]);
    assert!(said.contains("is backed up"), "{said}");
    sql(
        &shell,
        "INSERT INTO rows VALUES (10001) ON CONFLICT DO NOTHING",
    );
    let lost = lose(&mut shell, "db", volume);
    let other = restore(&shell, volume, lost);
    assert_eq!(worker(&shell, "db"), other);
    assert_eq!(
        sql(&shell, "SELECT count(*), max(id) FROM rows"),
        "10000|10000"
    );
}
