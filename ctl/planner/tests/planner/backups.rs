//! Backups of volumes, and volumes that are restored from them.

use tucano_api::{
    service::ServiceConfig,
    state::{AlertKind, VolumeState},
    units::Span,
    volumes::{BackupEnd, BackupOrder, BackupReport, FillSource},
};
use tucano_planner::{Action, Event, Restoration};
use tucano_simulator::{Sim, alerts, backup, node, with_volumes};

use crate::volumes::{node_of, reason, slots, volume, volumes};

/// A service with a volume that is backed up.
fn db(dump: &[&str]) -> ServiceConfig {
    let mut config = with_volumes("db", 1, &[("data", 64)]);
    config.volume[0].backup = Some(backup(dump));
    config
}

fn served(workers: usize, dump: &[&str]) -> Sim {
    let mut sim = Sim::new(workers);
    sim.set_backup_secret();
    sim.serve(db(dump));
    sim
}

fn restoration() -> Restoration {
    Restoration {
        id: "db/data/1".parse().unwrap(),
        from: None,
        on: None,
        lost: None,
        replace: false,
    }
}

fn orders(sim: &Sim) -> Vec<BackupOrder> {
    let here = volume(sim, "db/data/1").node;
    sim.cluster().desired_set(&here).unwrap().backups
}

fn stored(sim: &Sim) -> Vec<String> {
    let snapshots = sim.cluster().backups(&"db/data/1".parse().unwrap());
    snapshots.into_iter().map(|it| it.id).collect()
}

fn obstacle(sim: &Sim, restore: &Restoration) -> String {
    sim.cluster().restore_obstacle(restore).unwrap_or_default()
}

fn count(sim: &Sim, kind: AlertKind) -> usize {
    let sent = alerts(sim).into_iter();
    sent.filter(|(sent, _)| *sent == kind).count()
}

#[test]
fn a_volume_is_backed_up_at_once_and_then_regularly() {
    let mut sim = served(2, &[]);
    sim.until("the first backup", |sim| stored(sim) == ["1-1"]);
    sim.run(Span::secs(2));
    assert!(orders(&sim).is_empty());
    let view = volume(&sim, "db/data/1").backup.unwrap();
    let last = view.last.unwrap();
    assert_eq!(view.next, Some(last.at.after(Span::secs(60))));
    sim.run(Span::secs(300));
    assert_eq!(stored(&sim), ["1-3", "1-4", "1-5"], "three are kept");
    // Another controller knows of them.
    sim.restart_controller();
    assert_eq!(stored(&sim), ["1-3", "1-4", "1-5"]);
    sim.until("it goes on", |sim| stored(sim).contains(&"1-7".to_owned()));
}

#[test]
fn a_backup_is_made_on_request_and_of_what_can_be_used_only() {
    let mut sim = Sim::new(2);
    sim.set_backup_secret();
    let mut config = db(&[]);
    let id = "db/data/1".parse().unwrap();
    config.volume[0].backup.as_mut().unwrap().every = None;
    sim.serve(config.clone());
    sim.run(Span::secs(300));
    assert!(stored(&sim).is_empty());
    sim.event(Event::BackupRequested { id });
    sim.until("a backup", |sim| stored(sim).len() == 1);
    let id = "db/data/1".parse().unwrap();
    assert_eq!(sim.cluster().backup_obstacle(&id), None);
    config.volume[0].backup = None;
    sim.deploy(config);
    assert_eq!(
        sim.cluster().backup_obstacle(&id).unwrap(),
        "service db has no `backup` for volume db/data/1: add one to its configuration, and deploy it"
    );
    assert_eq!(slots(&sim).len(), 1, "nothing restarts");
}

#[test]
fn a_backup_that_is_requested_while_one_is_made_follows_it() {
    let mut sim = served(2, &[]);
    sim.until("the first order", |sim| !orders(sim).is_empty());
    let number = orders(&sim)[0].number;
    let id = "db/data/1".parse().unwrap();
    sim.event(Event::BackupRequested { id });
    assert_eq!(orders(&sim)[0].number, number, "it goes on");
    sim.until("the next one", |sim| stored(sim) == ["1-1", "1-2"]);
    sim.run(Span::secs(2));
    assert!(orders(&sim).is_empty());
    let view = volume(&sim, "db/data/1").backup.unwrap();
    assert_eq!(view.number, number + 1);
}

#[test]
fn a_dump_waits_for_its_process_to_be_healthy() {
    let mut sim = Sim::new(1);
    sim.set_backup_secret();
    sim.workloads.start_time = Span::secs(30);
    sim.deploy(db(&["dump"]));
    sim.run(Span::secs(20));
    assert!(orders(&sim).is_empty() && stored(&sim).is_empty());
    sim.until("the backup", |sim| stored(sim).len() == 1);
}

#[test]
fn a_failed_backup_is_alerted_once_and_tried_again_later_and_later() {
    let mut sim = served(1, &[]);
    sim.until("the first backup", |sim| stored(sim).len() == 1);
    sim.agent(1).volumes.mounted = false;
    sim.run(Span::secs(30));
    // A volume with a problem is not backed up: that has an alert of its own.
    assert_eq!(count(&sim, AlertKind::BackupFailed), 0);
    sim.agent(1).volumes.mounted = true;
    sim.until("an order", |sim| !orders(sim).is_empty());
    let order = orders(&sim).remove(0);
    let now = sim.now;
    let mut report = sim.agent(1).report(now);
    let failed = BackupReport {
        volume: order.volume.clone(),
        number: order.number,
        done: Default::default(),
        end: Some(BackupEnd::Failed {
            error: "no route to host".into(),
        }),
    };
    report.volumes.as_mut().unwrap().backups = vec![failed];
    let event = Event::NodeReported {
        node: node(1),
        report: Box::new(report),
    };
    sim.event(event);
    assert_eq!(count(&sim, AlertKind::BackupFailed), 1);
    let message = &sim.alerts.last().unwrap().message;
    assert_eq!(
        message,
        "volume db/data/1 on w1 was not backed up: no route to host"
    );
    let view = volume(&sim, "db/data/1").backup.unwrap();
    assert_eq!(view.error.as_deref(), Some("no route to host"));
    sim.until("the next one", |sim| {
        volume(sim, "db/data/1").backup.unwrap().error.is_none()
    });
    assert_eq!(count(&sim, AlertKind::BackupStored), 1);
}

#[test]
fn a_lost_volume_is_restored_elsewhere_and_the_lost_one_is_kept() {
    let mut sim = served(2, &[]);
    sim.until("a backup", |sim| stored(sim).len() == 1);
    let here = node_of(&sim, 1);
    let there = 3 - here;
    sim.agent(here).cut_power();
    let mut restore = restoration();
    assert!(obstacle(&sim, &restore).contains("can be used"));
    sim.until("it is away", |sim| {
        matches!(volume(sim, "db/data/1").state, VolumeState::Away { .. })
            && reason(sim, "db").contains("does not report")
    });
    sim.run(Span::secs(30));
    let merely_silent = obstacle(&sim, &restore);
    assert!(
        merely_silent.contains(&format!("give what it has there up with `--lost w{here}`")),
        "{merely_silent}"
    );
    restore.lost = Some(node(here));
    assert_eq!(obstacle(&sim, &restore), "");
    sim.event(Event::VolumeRestored(restore.clone()));
    let fills = sim.cluster().desired_set(&node(there)).unwrap().fills;
    let FillSource::Snapshot { snapshot, .. } = &fills[0].from else {
        panic!("{fills:?}");
    };
    assert_eq!(snapshot, "1-1");
    assert!(obstacle(&sim, &restore).contains("is being restored already"));
    sim.until_settled("db");
    assert_eq!(volumes(&sim), [("db/data/1".to_owned(), 2, node(there))]);
    // The lost worker returns: what it has stays there, and nothing uses it.
    sim.agent(here).power_on();
    sim.run(Span::secs(60));
    let orphan = volumes(&sim);
    assert_eq!(orphan.len(), 2, "{orphan:?}");
    assert!(sim.agent(here).containers.is_empty());
    assert_eq!(sim.agent(here).volumes.all.len(), 1);
    // Its backups go on, under the same name.
    sim.until("a later backup", |sim| {
        stored(sim).iter().any(|id| id.starts_with("2-"))
    });
}

#[test]
fn a_volume_that_can_be_used_is_replaced_only_if_that_is_wanted() {
    let mut sim = served(2, &[]);
    sim.until("a backup", |sim| stored(sim).len() == 1);
    let here = node_of(&sim, 1);
    let mut restore = restoration();
    assert_eq!(
        obstacle(&sim, &restore),
        format!(
            "volume db/data/1 is on w{here} and can be used: `--replace` restores it, and removes what it has now"
        )
    );
    restore.replace = true;
    restore.from = Some("1-".into());
    sim.event(Event::VolumeRestored(restore));
    sim.until("its process is gone", |sim| slots(sim).is_empty());
    assert_eq!(
        reason(&sim, "db"),
        format!("volume db/data/1 is being restored on w{here}")
    );
    sim.until_settled("db");
    sim.run(Span::secs(3));
    assert_eq!(volumes(&sim), [("db/data/1".to_owned(), 2, node(here))]);
    assert_eq!(sim.agent(here).volumes.all.len(), 1);
}

#[test]
fn a_dump_is_loaded_before_its_process_gets_requests() {
    let mut sim = served(1, &["dump"]);
    sim.until("a backup", |sim| stored(sim).len() == 1);
    let mut restore = restoration();
    restore.replace = true;
    sim.event(Event::VolumeRestored(restore));
    sim.until("the new process", |sim| {
        let set = sim.cluster().desired_set(&node(1)).unwrap();
        let mut volumes = set.processes.iter().flat_map(|it| &it.volumes);
        volumes.any(|it| it.load.is_some())
    });
    let set = sim.cluster().desired_set(&node(1)).unwrap();
    let load = set.processes[0].volumes[0].load.clone().unwrap();
    assert_eq!(
        (load.snapshot.as_str(), load.command),
        ("1-1", vec!["load".to_owned()])
    );
    assert!(set.processes[0].volumes[0].may_create);
    assert!(sim.routed("db").is_empty());
    sim.until_settled("db");
    assert_eq!(volumes(&sim), [("db/data/1".to_owned(), 2, node(1))]);
    assert_eq!(sim.routed("db").len(), 1);
}

#[test]
fn without_a_known_backup_or_its_place_nothing_is_restored() {
    let mut sim = Sim::new(2);
    sim.set_backup_secret();
    let mut config = db(&[]);
    config.volume[0].backup.as_mut().unwrap().every = None;
    sim.serve(config.clone());
    let here = node_of(&sim, 1);
    let mut restore = restoration();
    restore.replace = true;
    assert_eq!(
        obstacle(&sim, &restore),
        "no backup of volume db/data/1 in file:///backups is known: name one with `--from ID`"
    );
    restore.from = Some("abcd".into());
    assert_eq!(obstacle(&sim, &restore), "");
    restore.lost = Some(node(here));
    assert!(obstacle(&sim, &restore).contains("`--lost` is for workers that are not"));
    restore.lost = None;
    config.volume[0].backup.as_mut().unwrap().to = "file:///srv".into();
    sim.deploy(config);
    assert_eq!(
        obstacle(&sim, &restore),
        format!("w{here} does not list /srv in `backup_paths` of its agent.toml")
    );
    restore.on = Some(node(3 - here));
    sim.agent(3 - here).is_old = true;
    sim.agent(3 - here).restart();
    sim.run(Span::secs(2));
    assert!(obstacle(&sim, &restore).contains("makes no backups"));
    restore.on = None;
    restore.id = "db/data/2".parse().unwrap();
    assert_eq!(
        obstacle(&sim, &restore),
        "service db has no slot 2: its `concurrency` is 1"
    );
    let actions: Vec<Action> = sim.event(Event::VolumeRestored(restore));
    assert_eq!(actions, []);
}

#[test]
fn an_agent_gets_the_secrets_of_its_backups_only_while_it_makes_them() {
    let mut sim = served(2, &[]);
    let here = node_of(&sim, 1);
    let secret = tucano_api::secrets::SecretVersion {
        name: "backups".parse().unwrap(),
        version: 1,
    };
    sim.until("an order", |sim| !orders(sim).is_empty());
    assert!(sim.cluster().needs_secret(&node(here), &secret));
    assert!(!sim.cluster().needs_secret(&node(3 - here), &secret));
    sim.until("its end", |sim| {
        orders(sim).is_empty() && stored(sim).len() == 1
    });
    assert!(!sim.cluster().needs_secret(&node(here), &secret));
}
