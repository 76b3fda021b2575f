use super::*;

#[test]
fn lists_of_numbers_have_ranges() {
    assert_eq!(numbers("0-2,5,1").unwrap(), [0, 1, 2, 5].into());
    assert!(numbers("").unwrap().is_empty());
    assert!(numbers("1-x").is_err() && numbers("99999").is_err());
}

#[test]
fn scheduling_policies_are_converted() {
    let wanted = r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3,"flags":["SCHED_RESET_ON_FORK"]}"#;
    let told = scheduling(&serde_json::from_str(wanted).unwrap()).unwrap();
    assert_eq!((told.size, told.policy, told.flags), (56, 6, 1));
    assert_eq!((told.runtime, told.deadline, told.period), (1, 2, 3));
    for bad in [
        r#"{"policy":"SCHED_ISO"}"#,
        r#"{"policy":"SCHED_FIFO","priority":-1}"#,
    ] {
        assert!(
            scheduling(&serde_json::from_str(bad).unwrap()).is_err(),
            "{bad}"
        );
    }
    let idle = r#"{"class":"IOPRIO_CLASS_IDLE","priority":7}"#;
    assert_eq!(
        io_priority(&serde_json::from_str(idle).unwrap()),
        3 << 13 | 7
    );
}

#[test]
fn memory_nodes_are_bits() {
    let wanted = r#"{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]}"#;
    let (mode, bits) = memory_policy(&serde_json::from_str(wanted).unwrap()).unwrap();
    assert_eq!(mode, libc::MPOL_BIND | libc::MPOL_F_STATIC_NODES);
    assert_eq!(bits, [1, 2]);
}
