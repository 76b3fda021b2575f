use std::fs;

use super::*;

fn resolver(configured: &[&str], files: &[&str]) -> (tempfile::TempDir, Resolver) {
    let directory = tempfile::tempdir().unwrap();
    let paths = files.iter().enumerate().map(|(number, text)| {
        let path = directory.path().join(number.to_string());
        fs::write(&path, text).unwrap();
        path
    });
    let resolver = Resolver {
        served: Arc::default(),
        configured: configured.iter().map(|ip| ip.parse().unwrap()).collect(),
        files: paths.collect(),
    };
    (directory, resolver)
}

const STUB: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n";

#[test]
fn the_real_servers_replace_the_stub_of_systemd_resolved() {
    let real = "nameserver 10.0.0.2\nnameserver fd00::2\nsearch example.com\n";
    let (_directory, resolver) = resolver(&[], &[STUB, real]);
    let conf = resolver.resolv_conf();
    assert_eq!(conf.text, "search example.com\nnameserver 10.0.0.2\n");
    assert_eq!(conf.servers, ["10.0.0.2".parse().unwrap()].into());
    assert_eq!(resolver.condition(), None);
}

#[test]
fn servers_of_resolv_conf_come_first_and_unreachable_ones_are_left_out() {
    let text = "search a\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 0.0.0.0\n\
                    nameserver 10.0.0.2\nnameserver fe80::1%eth0\n  nameserver   10.0.0.2 \n\
                    nameserver ::ffff:10.0.0.3\nnameserver x\n#nameserver 10.0.0.9\n";
    let (_directory, resolver) = resolver(&[], &[text, "nameserver 10.0.0.8\n"]);
    let text = resolver.resolv_conf().text;
    let servers: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("nameserver"))
        .collect();
    assert_eq!(servers, ["nameserver 10.0.0.2", "nameserver 10.0.0.3"]);
    assert!(text.starts_with("search a\n"), "{text}");
}

#[test]
fn configured_servers_replace_those_of_the_node() {
    let (_directory, resolver) = resolver(&["10.9.9.9"], &[STUB, "nameserver 10.0.0.2\n"]);
    let conf = resolver.resolv_conf();
    assert_eq!(
        conf.text,
        "options edns0 trust-ad\nsearch example.org\nnameserver 10.9.9.9\n"
    );
    assert_eq!(resolver.condition(), None);
}

#[test]
fn a_node_without_usable_servers_has_a_condition() {
    for files in [[STUB, ""], ["", ""], ["nameserver ::1", STUB]] {
        let (directory, resolver) = resolver(&[], &files);
        assert!(resolver.condition().unwrap().contains("`dns`"), "{files:?}");
        assert!(!resolver.resolv_conf().text.contains("nameserver"));
        for number in ["0", "1"] {
            fs::remove_file(directory.path().join(number)).unwrap();
        }
        assert_eq!(resolver.resolv_conf(), ResolvConf::default());
    }
}

#[test]
fn processes_ask_the_agent_alone_and_it_asks_the_nodes_servers_in_their_order() {
    let node = "search example.org\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.2\noptions rotate\n";
    let (directory, resolver) = resolver(&[], &[node]);
    resolver.served_at([172, 31, 0, 1].into());
    let conf = resolver.resolv_conf();
    assert_eq!(
        conf.text,
        "nameserver 172.31.0.1\nsearch internal\noptions timeout:2 attempts:4\n"
    );
    assert_eq!(conf.servers, ["172.31.0.1".parse().unwrap()].into());
    let upstreams = |resolver: &Resolver| -> Vec<String> {
        let all = resolver.upstreams().into_iter();
        all.map(|ip| ip.to_string()).collect()
    };
    assert_eq!(upstreams(&resolver), ["127.0.0.53", "::1", "10.0.0.2"]);
    assert_eq!(resolver.condition(), None);
    // As network managers replace it.
    let next = directory.path().join("next");
    fs::write(&next, "nameserver 10.0.0.3\n").unwrap();
    fs::rename(next, directory.path().join("0")).unwrap();
    assert_eq!(upstreams(&resolver), ["10.0.0.3"]);
    resolver.not_served("port 53 is taken".to_owned());
    assert_eq!(resolver.condition().unwrap(), "port 53 is taken");
    assert!(resolver.resolv_conf().text.contains("nameserver 10.0.0.3"));
}
