use super::*;

fn set(generation: u64) -> DesiredSet {
    DesiredSet {
        generation: Generation(generation),
        ..DesiredSet::empty("w1".parse().unwrap())
    }
}

#[test]
fn a_set_is_due_only_for_a_known_agent_that_is_behind() {
    let address = AgentAddress {
        socket: "127.0.0.1:1".parse().unwrap(),
        tls: false,
    };
    let mut wanted = Wanted {
        set: Some(Arc::new(set(2))),
        ..Wanted::default()
    };
    assert!(wanted.due().is_none());
    wanted.address = Some(address);
    assert_eq!(wanted.due().unwrap().1.generation, Generation(2));
    wanted.seen = Some((SetIdentity::default(), Generation(2)));
    assert!(wanted.due().is_none());
}
