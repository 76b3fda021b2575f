use super::*;
use crate::config_mgr::tests::minimal;

fn config(tls: Option<Mode>, worker: &str, directory: &Path) -> Config {
    let mut config = minimal("agent_token = \"fedcba9876543210\"");
    config.tls = tls;
    config.data_dir = directory.to_owned();
    config.topology.workers[0].ip = worker.parse().unwrap();
    config
}

#[test]
fn a_cluster_older_than_tls_stays_plain_until_the_setting_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let open = |tls| {
        Tls::open(
            &config(tls, "10.0.0.11", directory.path()),
            Age::BeforeIdentities,
        )
        .unwrap()
    };
    let now = Timestamp(0);
    for _ in 0..2 {
        let tls = open(None);
        assert_eq!(tls.mode(), Mode::Off);
        assert!(tls.alert(now).unwrap().message.contains("tls = \"on\""));
    }
    let off = open(Some(Mode::Off));
    assert_eq!(off.mode(), Mode::Off);
    assert!(off.alert(now).unwrap().message.contains("deprecated"));
    let on = open(Some(Mode::On));
    assert_eq!((on.mode(), on.alert(now)), (Mode::On, None));
    // The decision is remembered.
    let tls = open(None);
    assert_eq!((tls.mode(), tls.alert(now)), (Mode::On, None));
}

#[test]
fn new_and_single_machine_clusters_use_tls_from_the_start() {
    for (worker, age) in [
        ("10.0.0.11", Age::New),
        ("127.0.0.11", Age::BeforeIdentities),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let tls = Tls::open(&config(None, worker, directory.path()), age).unwrap();
        assert_eq!(tls.mode(), Mode::On);
        assert!(tls.alert(Timestamp(0)).is_none());
    }
}

#[test]
fn losing_the_list_of_certified_nodes_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(Some(Mode::On), "10.0.0.11", directory.path());
    let worker = &config.topology.workers[0];
    let token_suffices = |age| {
        let tls = Tls::open(&config, age).unwrap();
        tls.nodes().token_suffices(worker, worker.ip)
    };
    assert!(token_suffices(Age::BeforeIdentities));
    assert!(token_suffices(Age::WithIdentities), "it is listed");
    std::fs::remove_file(super::directory(&config).join("nodes.json")).unwrap();
    assert!(!token_suffices(Age::WithIdentities));
}

#[test]
fn a_certificate_covers_all_names_and_is_reissued_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(None, "10.0.0.11", directory.path());
    config.topology.ctl.ip = "10.0.0.1".parse().unwrap();
    config.names = vec![Name::parse("ctl.example").unwrap()];
    config
        .listen
        .push(Listen::Address("0.0.0.0:1".parse().unwrap()));
    let tls = Tls::open(&config, Age::New).unwrap();
    let all = names(&config, &["10.1.0.1:7070".parse().unwrap()]);
    let mut issued = Names::new();
    tls.ensure(&all, &mut issued).unwrap();
    let first = tls.certificates.current().unwrap();
    let trust = &tls.trust;
    for name in [
        "10.0.0.1",
        "10.1.0.1",
        "127.0.0.1",
        "::1",
        "localhost",
        "ctl.example",
    ] {
        trust.verify(&first, name, SystemTime::now()).unwrap();
    }
    tls.ensure(&all, &mut issued).unwrap();
    assert_eq!(tls.certificates.current().unwrap().pem(), first.pem());
    tls.ensure(&names(&config, &[]), &mut issued).unwrap();
    assert_ne!(tls.certificates.current().unwrap().pem(), first.pem());
    // An expiring certificate is replaced.
    let over = SystemTime::now() - Duration::from_secs(25 * 86_400);
    let list: Vec<Name> = issued.iter().cloned().collect();
    let old = tls
        .authority
        .issue(&Identity::Controller, &list, Validity::from(over))
        .unwrap();
    tls.certificates.set(old.clone());
    tls.ensure(&names(&config, &[]), &mut issued).unwrap();
    assert_ne!(tls.certificates.current().unwrap().pem(), old.pem());
}
