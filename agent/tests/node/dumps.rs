//! Backups that are the output of a command, and what other commands load from them.

use std::fs;

use tucano_api::{
    agent::DesiredSet,
    volumes::{BackupOrder, Consistency, LoadReport, VolumeLoad},
};

use crate::{
    backups::{
        allow, can, desire, failure, order, process_of, restic, snapshots, stored, until,
        wait_for_file,
    },
    node::{Node, desired, on_a_node},
    volumes::{inside, instance},
};

fn dump(node: &Node, number: u64, script: &str) -> BackupOrder {
    BackupOrder {
        dump: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..order(node, number)
    }
}

#[test]
fn dumps_that_fail_or_are_empty_are_no_backups() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        allow(&mut node, "process_wait = \"1s\"").await;
        let process = [process_of(&node, "exec /hello")];
        desire(&node, 1, &process, &[]).await;
        node.wait_until_healthy("hello-1").await;
        let script = "seq 100000; echo on the side >&2";
        desire(&node, 2, &process, &[dump(&node, 1, script)]).await;
        let snapshot = stored(&node, 1).await;
        assert_eq!(snapshot.consistency, Consistency::Dump);
        let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(snapshot.bytes.0, expected.len() as u64);
        assert_eq!(restic(&node, &["dump", "latest", "/dump"]), expected);

        for (number, script, told) in [
            (
                2,
                "seq 100000; echo no such table >&2; exit 3",
                "exit code 3: no such table",
            ),
            (3, "true", "wrote nothing"),
            (4, "seq 100; kill -9 $$", "exit code 137"),
        ] {
            desire(&node, number + 1, &process, &[dump(&node, number, script)]).await;
            let error = failure(&node, number).await;
            assert!(error.contains(told), "{error}");
        }
        // The container ends.
        let endless = dump(&node, 5, "seq 100; : > /var/data/begun; sleep 100000");
        desire(&node, 6, &process, &[endless]).await;
        wait_for_file(&node, "/var/data/begun").await;
        let pid = i32::try_from(node.pid("hello-1")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let error = failure(&node, 5).await;
        assert!(error.contains("`dump`"), "{error}");

        // There is no healthy process.
        desire(&node, 7, &[], &[dump(&node, 6, "seq 1")]).await;
        let error = failure(&node, 6).await;
        assert!(error.contains("backups.process_wait"), "{error}");
        assert_eq!(snapshots(&node).len(), 1);
        crate::volumes::remove_all(&node, 8, instance("hello", 1)).await;
    });
}

/// What is loaded into the volume of instance `number`.
async fn loaded(node: &Node, number: u64, until: impl Fn(&LoadReport) -> bool) -> LoadReport {
    node.wait_for(&format!("the load of instance {number}"), |report| {
        let mut all = report.volumes.as_ref()?.all.iter();
        let found = all.find(|it| it.volume.instance == number)?;
        found.load.clone().filter(&until)
    })
    .await
}

#[test]
fn a_dump_is_loaded_once_whatever_happens_to_the_agent() {
    if !can() {
        return;
    }
    on_a_node("", async |mut node| {
        allow(&mut node, "").await;
        let plain = process_of(&node, "exec /hello");
        desire(&node, 1, std::slice::from_ref(&plain), &[]).await;
        node.wait_until_healthy("hello-1").await;
        desire(
            &node,
            2,
            std::slice::from_ref(&plain),
            &[dump(&node, 1, "seq 300000")],
        )
        .await;
        let snapshot = stored(&node, 1).await;
        let mut from = order(&node, 1).repository;
        from.id = Some(snapshot.repository.clone());
        let mut generation = 2;
        // Volumes of other instances, in which processes of their own load it.
        let cases = [
            (2, "cat >> /var/data/loaded"),
            (3, "cat > /var/data/loaded; echo no table >&2; exit 4"),
            // More than fits into the buffers on the way.
            (4, "read one; exit 0"),
            (
                5,
                "cat >> /var/data/loaded; : > /var/data/begun; sleep 100000",
            ),
        ];
        for (number, script) in cases {
            let mut process = plain.clone();
            process.id = format!("hello-{number}").parse().unwrap();
            process.volumes[0].volume.instance = number;
            process.volumes[0].load = Some(VolumeLoad {
                repository: from.clone(),
                snapshot: snapshot.id.clone(),
                command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            });
            desire(&node, generation + 1, &[], &[]).await;
            node.wait_for("no process", |report| {
                report.processes.is_empty().then_some(())
            })
            .await;
            generation += 2;
            let gone = DesiredSet {
                removed_volumes: vec![instance("hello", number - 1)],
                ..desired(generation, Vec::new())
            };
            node.controller.announce(generation);
            let (status, body) = node.put(&gone).await;
            assert_eq!(status, 200, "{body}");
            node.wait_for("no volume", |report| {
                report.volumes.as_ref()?.all.is_empty().then_some(())
            })
            .await;
            generation += 1;
            desire(&node, generation, &[process], &[]).await;
            let id = format!("hello-{number}");
            node.wait_until_healthy(&id).await;
            let file = inside(&node, &id, "/var/data/loaded");
            let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
            let is_over = |load: &LoadReport| load.loaded || load.error.is_some();
            let report = match number {
                5 => {
                    let begun = inside(&node, &id, "/var/data/begun");
                    until(&node, "the command", || begun.exists()).await;
                    loaded(&node, number, |load| !is_over(load)).await
                }
                _ => loaded(&node, number, is_over).await,
            };
            assert_eq!(report.snapshot, snapshot.id);
            node.kill_agent();
            node.start_agent().await;
            node.wait_until_healthy(&id).await;
            let later = loaded(&node, number, is_over).await;
            match number {
                2 => {
                    assert!(later.loaded && later.error.is_none(), "{later:?}");
                    assert_eq!(later.done.0, expected.len() as u64);
                    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
                }
                3 => {
                    let error = later.error.unwrap();
                    assert!(error.contains("exit code 4: no table"), "{error}");
                }
                4 => {
                    let error = later.error.unwrap();
                    assert!(error.contains("before it had read everything"), "{error}");
                }
                _ => {
                    let error = later.error.unwrap();
                    assert!(error.contains("the agent ended while"), "{error}");
                    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
                }
            }
        }
        crate::volumes::remove_all(&node, generation + 1, instance("hello", 5)).await;
    });
}
