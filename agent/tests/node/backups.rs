//! Backups of volumes in repositories that restic opens.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tucano_agent::{agent::executor, backups::restore_into, settings::Settings};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ProcessState},
    secrets::SecretVersion,
    units::Span,
    volumes::{BackupEnd, BackupOrder, BackupReport, Consistency, Repository, Snapshot},
};
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_oci_runtime::cgroup::Cgroup;
use tucano_testkit::{needs, programs, tool};

use crate::{
    node::{Node, desired, on_a_node, run},
    secrets::files_with,
    volumes::{can as can_have_volumes, inside, instance, with_volume},
};

const PASSWORD: &str = "correct-horse-battery";

/// Writes numbers to one file and then to another, so that at each moment the first is the same or the next one. The names have the
/// first read before the files in between, and the second after them.
const WRITER: &str = "cd /var/data; mkdir -p m; for i in $(seq 200); do echo $i > m/$i; done; \
    (i=0; while true; do i=$((i+1)); echo $i > t; mv t a; echo $i > t; mv t z; done) & exec /hello";

pub(crate) fn can() -> bool {
    can_have_volumes() && needs(&[tool("restic"), tool("busybox"), tool("mkfifo")])
}

/// An image with a shell that runs this script.
fn image(script: &str) -> Layout {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let programs = tucano_image_builder::build_programs(workspace).unwrap();
    let busybox = String::from_utf8(
        Command::new("which")
            .arg("busybox")
            .output()
            .unwrap()
            .stdout,
    );
    let busybox = fs::read(busybox.unwrap().trim()).unwrap();
    let mut entries = vec![
        Entry::file("hello", fs::read(programs.join("hello")).unwrap()).mode(0o755),
        Entry::directory("bin/"),
        Entry::file("bin/busybox", busybox).mode(0o755),
    ];
    for name in [
        "sh", "cat", "mv", "mkdir", "seq", "sleep", "wc", "false", "true",
    ] {
        entries.push(Entry::symlink(&format!("bin/{name}"), "busybox"));
    }
    let mut spec = ImageSpec::new("hello");
    spec.entrypoint = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let layer = Layer::new(&entries, Compression::Gzip).unwrap();
    spec.layer(layer).build().unwrap()
}

/// A process with a volume whose image runs a script.
pub(crate) fn process_of(node: &Node, script: &str) -> DesiredProcess {
    let image = image(script);
    node.controller.publish(&image);
    let mut process = with_volume("hello", 1, "64MiB", "");
    process.image = image.manifest_digest.parse().unwrap();
    process
}

/// Has the agent allow repositories below `backups`, and run this program; `more` goes to `[backups]`.
pub(crate) async fn allow(node: &mut Node, more: &str) {
    let backups = node.root.path().join("backups");
    fs::create_dir_all(&backups).unwrap();
    node.controller
        .set_secrets(Some(&[("repository@1", PASSWORD.as_bytes())]));
    node.kill_agent();
    node.reconfigure(|text| format!("backup_paths = [{backups:?}]\n{text}\n[backups]\n{more}\n"));
    node.start_agent().await;
    // The last report of the agent that was killed may still be there.
    let paths = [backups.display().to_string()];
    let report = node.wait_for("a report with the paths", |report| {
        let volumes = report.volumes.clone();
        volumes.filter(|volumes| volumes.backup_paths == paths)
    });
    assert!(
        report.await.can_back_up,
        "tucano_backup is built with the other programs"
    );
}

fn repository(node: &Node) -> PathBuf {
    node.root.path().join("backups/cluster")
}

pub(crate) fn order(node: &Node, number: u64) -> BackupOrder {
    BackupOrder {
        volume: instance("hello", 1),
        number,
        repository: Repository {
            location: format!("file://{}", repository(node).display()),
            password: SecretVersion {
                name: "repository".parse().unwrap(),
                version: 1,
            },
            access_key: None,
            endpoint: None,
            region: None,
            id: None,
        },
        keep: 1,
        dump: Vec::new(),
        process: Some("hello-1".parse().unwrap()),
        freeze_at_most: Span::secs(60),
    }
}

pub(crate) async fn desire(
    node: &Node,
    generation: u64,
    processes: &[DesiredProcess],
    backups: &[BackupOrder],
) {
    node.controller.announce(generation);
    let set = DesiredSet {
        backups: backups.to_vec(),
        ..desired(generation, processes.to_vec())
    };
    let (status, body) = node.put(&set).await;
    assert_eq!(status, 200, "{body}");
}

async fn end_of(node: &Node, number: u64) -> BackupEnd {
    node.wait_for(&format!("the end of backup {number}"), |report| {
        let backups = &report.volumes.as_ref()?.backups;
        let of = |report: &&BackupReport| report.number == number;
        backups.iter().find(of)?.end.clone()
    })
    .await
}

pub(crate) async fn stored(node: &Node, number: u64) -> Snapshot {
    match end_of(node, number).await {
        BackupEnd::Stored(snapshot) => snapshot,
        BackupEnd::Failed { error } => panic!("{error}\n{}", node.logged()),
    }
}

pub(crate) async fn failure(node: &Node, number: u64) -> String {
    match end_of(node, number).await {
        BackupEnd::Failed { error } => error,
        BackupEnd::Stored(snapshot) => panic!("{snapshot:?}"),
    }
}

/// The output of restic with the node's repository.
pub(crate) fn restic(node: &Node, arguments: &[&str]) -> String {
    let output = Command::new("restic")
        .arg("--no-cache")
        .arg("--repo")
        .arg(repository(node))
        .args(arguments)
        .env("RESTIC_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn snapshots(node: &Node) -> Vec<serde_json::Value> {
    let list = restic(node, &["snapshots", "--json"]);
    serde_json::from_str::<Vec<serde_json::Value>>(&list).unwrap()
}

/// The files of a snapshot, restored by restic; the directory that has the file `a`.
fn restored(node: &Node, snapshot: &str) -> PathBuf {
    let target = node.root.path().join("restored").join(snapshot);
    restic(
        node,
        &["restore", snapshot, "--target", target.to_str().unwrap()],
    );
    directory_with(&target, "a").expect("the files of the volume")
}

fn directory_with(directory: &Path, name: &str) -> Option<PathBuf> {
    if directory.join(name).is_file() {
        return Some(directory.to_owned());
    }
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut below = entries.filter(|entry| entry.path().is_dir());
    below.find_map(|entry| directory_with(&entry.path(), name))
}

fn number_in(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn is_frozen(node: &Node) -> bool {
    let home = node.data("processes/hello-1/home");
    Cgroup::of(&home).unwrap().unwrap().is_stopped()
}

/// Waits until the process writes on.
async fn wait_for_writes(node: &Node) {
    let file = inside(node, "hello-1", "/var/data/a");
    let before = number_in(&file);
    until(node, "the process to write", || {
        fs::read_to_string(&file)
            .is_ok_and(|text| text.trim().parse().is_ok_and(|n: u64| n > before))
    })
    .await;
}

/// Waits without keeping the controller, which the agent asks for secrets, from answering.
pub(crate) async fn until(node: &Node, what: &str, mut condition: impl FnMut() -> bool) {
    node.wait_for(what, |_| condition().then_some(())).await;
}

/// A program that runs `tucano_backup`, and before the pass over a frozen process waits for somebody who opens `gate`, while there is
/// a file `hold`.
struct Gate(PathBuf);

impl Gate {
    fn new(node: &Node) -> Self {
        let directory = node.root.path().join("gate");
        fs::create_dir(&directory).unwrap();
        let at = directory.display();
        let script = format!(
            "#!/bin/sh\nread -r line\ncase \"$line\" in *'\"forget_parent\":true'*)\n\
             if [ -e {at}/hold ]; then : > {at}/reached; cat {at}/gate > /dev/null; fi;;\nesac\n\
             {{ printf '%s\\n' \"$line\"; exec cat; }} | exec {}\n",
            programs().join("tucano_backup").display()
        );
        let program = directory.join("program");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        run("mkfifo", &[directory.join("gate").to_str().unwrap()]);
        Self(directory)
    }

    fn setting(&self) -> String {
        format!("program = {:?}", self.0.join("program"))
    }

    fn hold(&self) {
        fs::write(self.0.join("hold"), "").unwrap();
    }

    async fn wait(&self, node: &Node) {
        let reached = self.0.join("reached");
        until(node, "the frozen pass", || reached.exists()).await;
        fs::remove_file(reached).unwrap();
    }

    /// From now on nothing waits.
    fn open(&self) {
        fs::remove_file(self.0.join("hold")).unwrap();
        // The reader gets the end of the file.
        drop(
            fs::File::options()
                .read(true)
                .write(true)
                .open(self.0.join("gate")),
        );
    }
}

#[test]
fn a_backup_of_a_process_that_writes_is_of_one_moment() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        allow(&mut node, "").await;
        let process = [process_of(&node, WRITER)];
        desire(&node, 1, &process, &[]).await;
        node.wait_until_healthy("hello-1").await;
        until(&node, "the first files", || {
            inside(&node, "hello-1", "/var/data/z").exists()
        })
        .await;
        desire(&node, 2, &process, &[order(&node, 1)]).await;
        let first = stored(&node, 1).await;
        assert_eq!(first.consistency, Consistency::Frozen);
        assert_eq!(first.location, order(&node, 1).repository.location);
        assert!(first.bytes.0 > 0 && first.added.0 > 0, "{first:?}");
        wait_for_writes(&node).await;
        let files = restored(&node, &first.id);
        let (a, z) = (number_in(&files.join("a")), number_in(&files.join("z")));
        assert!(a == z || a == z + 1, "{a} {z}");
        assert_eq!(fs::read_dir(files.join("m")).unwrap().count(), 200);

        // The next one takes its place; no first pass is left.
        let mut next = order(&node, 2);
        next.repository.id = Some(first.repository.clone());
        desire(&node, 3, &process, &[next]).await;
        let second = stored(&node, 2).await;
        assert_eq!(second.repository, first.repository);
        let all = snapshots(&node);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0]["id"].as_str().unwrap(), second.id);
        assert_eq!(all[0]["hostname"], "w1");
        let tags = all[0]["tags"].to_string();
        assert!(
            tags.contains("hello/data/1") && tags.contains("service=hello"),
            "{tags}"
        );
        restic(&node, &["check", "--read-data"]);
        let report = node.wait_until_healthy("hello-1").await;
        assert_eq!(report.restarts, 0);

        // The password is nowhere.
        for directory in [node.data(""), node.root.path().to_owned()] {
            assert_eq!(
                files_with(&directory, PASSWORD.as_bytes()),
                Vec::<PathBuf>::new()
            );
        }
        assert!(!node.logged().contains(PASSWORD));
        crate::volumes::remove_all(&node, 4, instance("hello", 1)).await;
    });
}

#[test]
fn a_volume_without_a_process_is_backed_up_and_a_repository_is_never_made_in_place_of_another() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        allow(&mut node, "process_wait = \"0s\"").await;
        let process = [process_of(&node, WRITER)];
        desire(&node, 1, &process, &[]).await;
        node.wait_until_healthy("hello-1").await;
        wait_for_file(&node, "/var/data/z").await;
        desire(&node, 2, &[], &[]).await;
        node.wait_for("no process", |report| {
            report.processes.is_empty().then_some(())
        })
        .await;
        let base = order(&node, 0);
        let without = |number| BackupOrder {
            number,
            process: None,
            ..base.clone()
        };
        desire(&node, 3, &[], &[without(1)]).await;
        let first = stored(&node, 1).await;
        assert_eq!(first.consistency, Consistency::Unused);
        let files = restored(&node, &first.id);
        assert_eq!(fs::read_dir(files.join("m")).unwrap().count(), 200);

        // By the function that fills volumes.
        node.kill_agent();
        let mut settings = Settings::load(&node.root.path().join("agent.toml")).unwrap();
        settings.runtime = Some(programs().join("tucano_oci"));
        settings.backups.program = Some(programs().join("tucano_backup"));
        let target = node.root.path().join("target");
        fs::create_dir(&target).unwrap();
        {
            let executor = executor(&settings).unwrap();
            let mut from = without(1).repository;
            from.id = Some(first.repository.clone());
            let progress = Default::default();
            let restored = restore_into(&executor, &target, &from, &first.id, &progress).await;
            restored.unwrap();
            let bytes = progress.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(bytes, first.bytes.0);
            assert_eq!(number_in(&target.join("a")), number_in(&files.join("a")));
            let again = restore_into(&executor, &target, &from, &first.id, &progress).await;
            assert!(again.unwrap_err().contains("empty"));
        }
        node.start_agent().await;

        // Another password.
        node.controller.set_secrets(Some(&[
            ("repository@1", PASSWORD.as_bytes()),
            ("repository@2", b"wrong-horse"),
        ]));
        let mut wrong = without(2);
        wrong.repository.password.version = 2;
        desire(&node, 4, &[], &[wrong]).await;
        let error = failure(&node, 2).await;
        assert!(
            error.contains("version 2 of the secret repository"),
            "{error}"
        );
        assert!(!error.contains("horse") && !node.logged().contains("wrong-horse"));

        // No secret.
        let mut unknown = without(3);
        unknown.repository.password.version = 3;
        desire(&node, 5, &[], &[unknown]).await;
        let error = failure(&node, 3).await;
        assert!(
            error.contains("secret repository") && error.contains("403"),
            "{error}"
        );

        // Its disk is not mounted.
        let away = node.root.path().join("away");
        fs::rename(repository(&node), &away).unwrap();
        let mut known = without(4);
        known.repository.id = Some(first.repository.clone());
        desire(&node, 6, &[], &[known.clone()]).await;
        let error = failure(&node, 4).await;
        assert!(error.contains("is its file system mounted?"), "{error}");
        assert!(!repository(&node).exists());
        fs::create_dir(repository(&node)).unwrap();
        known.number = 5;
        desire(&node, 7, &[], &[known]).await;
        let error = failure(&node, 5).await;
        assert!(error.contains("there is no repository"), "{error}");
        assert_eq!(fs::read_dir(repository(&node)).unwrap().count(), 0);

        // Outside of what the node allows.
        let mut outside = without(6);
        outside.repository.location = format!("file://{}", away.display());
        desire(&node, 8, &[], &[outside]).await;
        let error = failure(&node, 6).await;
        assert!(error.contains("backup_paths"), "{error}");
        crate::volumes::remove_all(&node, 9, instance("hello", 1)).await;
    });
}

pub(crate) async fn wait_for_file(node: &Node, path: &str) {
    let file = inside(node, "hello-1", path);
    until(node, path, || file.exists()).await;
}

#[test]
fn a_freeze_ends_with_its_time_its_agent_its_order_and_its_process() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        let gate = Gate::new(&node);
        allow(&mut node, &gate.setting()).await;
        let process = [process_of(&node, WRITER)];
        desire(&node, 1, &process, &[]).await;
        node.wait_until_healthy("hello-1").await;
        wait_for_file(&node, "/var/data/z").await;

        // Its time is over.
        gate.hold();
        let short = BackupOrder {
            freeze_at_most: Span::millis(500),
            ..order(&node, 1)
        };
        desire(&node, 2, &process, &[short]).await;
        let error = failure(&node, 1).await;
        assert!(error.contains("freeze_at_most (500ms)"), "{error}");
        // The program may have been killed before it came so far.
        fs::remove_file(gate.0.join("reached")).ok();
        assert!(!is_frozen(&node));
        wait_for_writes(&node).await;

        // Its agent is killed. The next one makes the backup.
        desire(&node, 3, &process, &[order(&node, 2)]).await;
        gate.wait(&node).await;
        assert!(is_frozen(&node));
        let health = node.wait_for_process("hello-1", "frozen", |_| true).await;
        assert_eq!(health.state, ProcessState::Healthy);
        node.kill_agent();
        assert!(is_frozen(&node));
        gate.open();
        node.start_agent().await;
        assert!(
            node.logged()
                .contains("thawed what an earlier agent had frozen")
        );
        let snapshot = stored(&node, 2).await;
        assert_eq!(snapshot.consistency, Consistency::Frozen);
        assert_eq!(snapshots(&node).len(), 1, "without the first passes before");
        wait_for_writes(&node).await;

        // Its order is withdrawn.
        gate.hold();
        desire(&node, 4, &process, &[order(&node, 3)]).await;
        gate.wait(&node).await;
        assert!(is_frozen(&node));
        desire(&node, 5, &process, &[]).await;
        until(&node, "the thaw", || !is_frozen(&node)).await;
        wait_for_writes(&node).await;
        node.wait_for("no backup", |report| {
            report.volumes.as_ref()?.backups.is_empty().then_some(())
        })
        .await;

        // Its process is stopped. What is left of it is read then.
        desire(&node, 6, &process, &[order(&node, 4)]).await;
        gate.wait(&node).await;
        assert!(is_frozen(&node));
        desire(&node, 7, &[], &[order(&node, 4)]).await;
        node.wait_for("no process", |report| {
            report.processes.is_empty().then_some(())
        })
        .await;
        let snapshot = stored(&node, 4).await;
        assert_eq!(snapshot.consistency, Consistency::Unused);
        gate.open();
        crate::volumes::remove_all(&node, 8, instance("hello", 1)).await;
    });
}
