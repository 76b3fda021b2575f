use super::*;

#[test]
fn service_names_are_dns_labels() {
    for good in ["a", "hello", "a-b-1", &"x".repeat(50)] {
        assert!(good.parse::<ServiceName>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "1a",
        "a.b",
        "é",
        "a/b",
        "..",
        &"x".repeat(51),
    ] {
        assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
    }
}

#[test]
fn process_ids_tell_services_apart() {
    let id = ProcessId::new(&"hello-7".parse().unwrap(), 12);
    assert_eq!(id.as_str(), "hello-7-12");
    assert_eq!(id.number(), 12);
    assert_eq!(id.service_name(), "hello-7");
    assert!("hello".parse::<ProcessId>().is_err());
    assert!("../x-1".parse::<ProcessId>().is_err());
}

#[test]
fn a_balancers_id_belongs_to_one_name() {
    for name in ["edge1", "edge1-2", "a.b-3-4"] {
        let id = BalancerId::new(name, 7, 0xabc).unwrap();
        assert_eq!(id.name(), Some(name), "{id}");
    }
    assert_eq!("plain".parse::<BalancerId>().unwrap().name(), None);
    for bad in ["", "-a", "a-", "a_b", "a:b", "a/b", &"x".repeat(64)] {
        assert!(bad.parse::<BalancerName>().is_err(), "{bad}");
    }
}

#[test]
fn a_volume_belongs_to_a_slot_of_a_service() {
    let id = VolumeId::new(&"db-1".parse().unwrap(), &"data".parse().unwrap(), 12);
    assert_eq!(id.as_str(), "db-1/data/12");
    assert_eq!(
        (id.service_name(), id.volume_name(), id.slot()),
        ("db-1", "data", 12)
    );
    for bad in [
        "db/data",
        "db/data/0",
        "db/data/01",
        "db/data/x",
        "db//1",
        "db/data/1/2",
        "../data/1",
    ] {
        assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
    }
    for bad in ["", ".a", "a/b", "a b", "-a"] {
        assert!(bad.parse::<SecretName>().is_err(), "{bad}");
    }
}

#[test]
fn digests_are_exact() {
    let hex = "0".repeat(64);
    assert_eq!(Digest::sha256(&hex).unwrap().hex(), hex);
    for bad in [
        "sha256:",
        "sha256:../../etc",
        &format!("sha256:{}", "G".repeat(64)),
        "md5:0",
    ] {
        assert!(bad.parse::<Digest>().is_err(), "{bad}");
    }
}

#[test]
fn the_error_says_which_rule_was_broken() {
    let error = "Hello".parse::<ServiceName>().unwrap_err().to_string();
    assert!(
        error.contains("\"Hello\"") && error.contains("lower-case"),
        "{error}"
    );
}
