use tucano_api::{ids::Revision, state::HoldCause};

use super::*;

#[test]
fn nodes_obstacles_and_services_are_described() {
    let node = |name: &str, obstacle: Option<&str>| AdoptableNode {
        name: name.parse().unwrap(),
        cause: HoldCause::OtherCluster,
        cluster: None,
        processes: vec!["hello-1".parse().unwrap()],
        obstacle: obstacle.map(str::to_owned),
    };
    let adoption = Adoption {
        nodes: vec![node("w1", None), node("w2", Some("it does not report"))],
        services: vec![AdoptableService {
            name: "hello".parse().unwrap(),
            revisions: vec![Revision(2)],
            processes: 1,
            concurrency: 1,
            configured: false,
        }],
    };
    let text = preview(&adoption);
    let lines: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "node w1: its agent belongs to another cluster; it runs hello-1",
            "node w2: its agent belongs to another cluster; cannot be adopted: it does not report",
            "service hello: revision 2, processes 1, concurrency 1; not configured here",
        ]
    );
    assert!(text.contains("tucano adopt --yes"));
}
