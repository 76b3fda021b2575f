//! Versions of secrets, and the services that have them.

use tucano_api::{
    ids::{Revision, SecretName},
    secrets::SecretVersion,
    service::{SecretRef, ServiceConfig},
};
use tucano_planner::{Event, Sealed};
use tucano_simulator::{Sim, config, name, node};

fn secret(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn with_secrets(service: &str, concurrency: u32, names: &[&str]) -> ServiceConfig {
    let secrets = names.iter().map(|name| SecretRef {
        name: secret(name),
        path: None,
        env: None,
        mode: Default::default(),
        uid: 0,
        gid: 0,
        version: None,
    });
    ServiceConfig {
        secret: secrets.collect(),
        ..config(service, concurrency)
    }
}

fn set(sim: &mut Sim, name: &str, value: &str) -> u64 {
    let version = sim.cluster().next_secret_version();
    sim.event(Event::SecretSet {
        name: secret(name),
        version,
        sealed: Sealed::from(value.to_owned()),
    });
    version
}

/// Deploys with the newest versions, as the deployer does.
fn deploy(sim: &mut Sim, mut config: ServiceConfig) {
    let missing = sim.cluster().resolve_secrets(&mut config);
    assert!(missing.is_empty(), "{missing:?}");
    sim.deploy(config);
}

fn versions(sim: &Sim, service: &str) -> Vec<Option<u64>> {
    let config = sim.service(service).configured.config;
    config.secret.iter().map(|secret| secret.version).collect()
}

fn wanted(name: &str, version: u64) -> SecretVersion {
    SecretVersion {
        name: secret(name),
        version,
    }
}

#[test]
fn a_secret_that_does_not_exist_is_named() {
    let mut sim = Sim::new(1);
    set(&mut sim, "a", "1");
    let mut config = with_secrets("web", 1, &["a", "b", "b"]);
    assert_eq!(sim.cluster().resolve_secrets(&mut config), [secret("b")]);
    config.secret.truncate(1);
    config.secret[0].version = Some(7);
    assert_eq!(sim.cluster().resolve_secrets(&mut config), [secret("a")]);
}

#[test]
fn a_new_value_rolls_exactly_the_services_that_have_the_secret() {
    let mut sim = Sim::new(2);
    let first = set(&mut sim, "password", "1");
    deploy(&mut sim, with_secrets("web", 4, &["password"]));
    deploy(&mut sim, with_secrets("other", 2, &[]));
    sim.until_settled("web");
    sim.until_settled("other");
    assert_eq!(versions(&sim, "web"), [Some(first)]);
    let (web, other) = (sim.ids("web"), sim.ids("other"));
    let second = set(&mut sim, "password", "2");
    assert!(second > first);
    // The simulation checks at each step that no more are replaced at once than in any rollout.
    sim.until_settled("web");
    sim.until_settled("other");
    assert_eq!(versions(&sim, "web"), [Some(second)]);
    assert_eq!(sim.service("web").configured.revision, Revision(2));
    assert!(sim.ids("web").iter().all(|id| !web.contains(id)));
    assert_eq!(sim.ids("other"), other);
}

#[test]
fn a_worker_gets_what_its_own_processes_need() {
    let mut sim = Sim::new(2);
    let version = set(&mut sim, "password", "1");
    deploy(&mut sim, with_secrets("web", 1, &["password"]));
    sim.until_settled("web");
    let holder = sim.service("web").active.processes[0].node.clone();
    let others = [node(1), node(2)];
    for worker in others {
        let needs = |version: u64| {
            let wanted = wanted("password", version);
            sim.cluster().needs_secret(&worker, &wanted)
        };
        assert_eq!(needs(version), worker == holder, "{worker}");
        assert!(!needs(version + 1));
    }
    let used = sim.cluster().process_with_secret(&secret("password"));
    assert!(used.is_some());
    sim.remove("web");
    let cluster = sim.cluster();
    assert!(!cluster.needs_secret(&holder, &wanted("password", version)));
    assert!(cluster.process_with_secret(&secret("password")).is_none());
}

#[test]
fn versions_stay_as_long_as_a_revision_has_them() {
    let mut sim = Sim::new(2);
    let first = set(&mut sim, "password", "1");
    deploy(&mut sim, with_secrets("web", 1, &["password"]));
    sim.until_settled("web");
    let second = set(&mut sim, "password", "2");
    sim.until_settled("web");
    let revisions = sim.cluster().revisions(&name("web"));
    let earlier = revisions[0].config.secret[0].version;
    assert_eq!(earlier, Some(first));
    let record = sim.cluster().secret(&secret("password")).unwrap().clone();
    assert_eq!(record.versions.len(), 2);
    // An earlier revision is as it was: that is what a rollback is for.
    sim.deploy(revisions[0].config.clone());
    sim.until_settled("web");
    assert_eq!(versions(&sim, "web"), [Some(first)]);
    // Once no revision has it, it goes.
    sim.remove("web");
    let record = sim.cluster().secret(&secret("password")).unwrap();
    let left: Vec<u64> = record.versions.iter().map(|it| it.version).collect();
    assert_eq!(left, [second]);
}

#[test]
fn a_secret_is_used_by_every_revision_that_is_kept() {
    let mut sim = Sim::new(1);
    set(&mut sim, "password", "1");
    deploy(&mut sim, with_secrets("web", 1, &["password"]));
    sim.until_settled("web");
    sim.deploy_image(config("web", 1), 2);
    sim.until_settled("web");
    let users = sim.cluster().secret_users(&secret("password"));
    let shown: Vec<String> = users.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["revision 1 of web"]);
    assert!(sim.cluster().secret_users(&secret("other")).is_empty());
}

#[test]
fn a_version_number_is_never_used_twice() {
    let mut sim = Sim::new(1);
    let first = set(&mut sim, "password", "1");
    sim.event(Event::SecretRemoved {
        name: secret("password"),
    });
    assert!(sim.cluster().secret(&secret("password")).is_none());
    let second = set(&mut sim, "password", "1");
    assert!(second > first);
    // A controller that has lost its memory, and adopts what runs.
    deploy(&mut sim, with_secrets("web", 1, &["password"]));
    sim.until_settled("web");
    let mut disk = sim.cluster().snapshot();
    disk.secrets.clear();
    disk.counters.last_secret_version = 0;
    sim.replace_disk(disk);
    assert!(sim.cluster().next_secret_version() > second);
}

#[test]
fn secrets_survive_a_restart_of_the_controller() {
    let mut sim = Sim::new(1);
    let version = set(&mut sim, "password", "1");
    deploy(&mut sim, with_secrets("web", 1, &["password"]));
    sim.until_settled("web");
    sim.restart_controller();
    let record = sim.cluster().secret(&secret("password")).unwrap();
    assert_eq!(record.newest().unwrap().version, version);
    assert_eq!(record.newest().unwrap().sealed.as_str(), "1");
    assert!(sim.cluster().next_secret_version() > version);
}

#[test]
fn resealed_values_replace_those_that_are_still_there() {
    let mut sim = Sim::new(1);
    set(&mut sim, "a", "1");
    set(&mut sim, "b", "1");
    let mut records: Vec<_> = sim.cluster().sealed_secrets().cloned().collect();
    for record in &mut records {
        record.versions[0].sealed = Sealed::from("resealed".to_owned());
    }
    sim.event(Event::SecretRemoved { name: secret("b") });
    sim.event(Event::SecretsResealed { records });
    let sealed: Vec<&str> = sim
        .cluster()
        .sealed_secrets()
        .map(|it| it.versions[0].sealed.as_str())
        .collect();
    assert_eq!(sealed, ["resealed"]);
}
