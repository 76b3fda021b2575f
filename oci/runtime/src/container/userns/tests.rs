use super::*;

fn ids() -> IdMappings {
    let text =
        r#"[{"containerID":0,"hostID":100000,"size":10},{"containerID":50,"hostID":7,"size":1}]"#;
    let users: Vec<LinuxIdMapping> = serde_json::from_str(text).unwrap();
    IdMappings {
        groups: users.clone(),
        users,
    }
}

#[test]
fn ids_are_translated_and_unmapped_ones_are_not() {
    assert_eq!(ids().root(), (100_000, 100_000));
    assert_eq!(ids().host_uid(9), Some(100_009));
    assert_eq!(ids().host_uid(10), None);
    assert_eq!(ids().host_gid(50), Some(7));
    assert_eq!(IdMappings::default().host_uid(1234), Some(1234));
}

#[test]
fn the_mapping_is_written_as_the_kernel_reads_it() {
    assert_eq!(text(&ids().users), "0 100000 10\n50 7 1\n");
    let read = mapping("         0     100000         10").unwrap();
    assert_eq!(read, ids().users[0]);
    assert!(mapping("0 1").is_err() && mapping("a b c").is_err());
}
