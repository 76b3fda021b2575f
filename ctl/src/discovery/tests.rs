use super::*;

const SOON: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

fn route(name: &str) -> ServiceRoute {
    ServiceRoute {
        service: name.parse().unwrap(),
        hosts: vec![format!("{name}.localhost")],
        path_prefix: None,
        endpoints: Vec::new(),
    }
}

#[tokio::test]
async fn there_is_no_table_before_the_first() {
    let discovery = Discovery::new("a".into());
    assert_eq!(discovery.next(None, None, SOON).await, None);
    assert_eq!(discovery.next(None, Some("older-7"), SOON).await, None);
    discovery.publish(Vec::new());
    assert_eq!(
        discovery
            .next(None, Some("older-7"), LONG)
            .await
            .unwrap()
            .version,
        "a-1"
    );
}

#[tokio::test]
async fn a_deploy_waits_for_the_balancer_only_where_there_is_one() {
    let discovery = Arc::new(Discovery::new("a".into()));
    discovery.publish(vec![route("hello")]);
    discovery.until_followed(LONG).await;
    assert_eq!(discovery.next(None, Some("a-1"), SOON).await, None);
    discovery.until_followed(LONG).await;
    discovery.publish(vec![route("other")]);
    let waiting = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.until_followed(LONG).await }
    });
    assert!(discovery.next(None, Some("a-1"), LONG).await.is_some());
    assert!(!waiting.is_finished(), "requested, not yet acknowledged");
    assert_eq!(discovery.next(None, Some("a-2"), SOON).await, None);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_deploy_waits_for_a_balancer_that_takes_its_first_table() {
    let discovery = Arc::new(Discovery::new("a".into()));
    let balancer: BalancerId = "b-1-1".parse().unwrap();
    assert_eq!(discovery.next(Some(&balancer), None, SOON).await, None);
    discovery.publish(vec![route("hello")]);
    let waiting = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.until_followed(LONG).await }
    });
    let first = discovery.next(Some(&balancer), None, LONG).await;
    assert!(first.is_some() && !waiting.is_finished());
    assert_eq!(
        discovery.next(Some(&balancer), Some("a-1"), SOON).await,
        None
    );
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_follower_gets_changes_only() {
    let discovery = Arc::new(Discovery::new("a".into()));
    discovery.publish(vec![route("hello")]);
    discovery.publish(vec![route("hello")]);
    let first = discovery.next(None, None, LONG).await.unwrap();
    assert_eq!(first.version, "a-1");
    assert_eq!(discovery.next(None, Some("a-1"), SOON).await, None);
    let follower = tokio::spawn({
        let discovery = discovery.clone();
        async move { discovery.next(None, Some("a-1"), LONG).await }
    });
    discovery.publish(vec![route("other")]);
    let second = follower.await.unwrap().unwrap();
    assert_eq!(second.version, "a-2");
    assert_eq!(second.services[0].service.as_str(), "other");
}
