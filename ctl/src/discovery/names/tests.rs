use std::net::Ipv4Addr;

use super::*;

const NOW: Duration = Duration::from_millis(1);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn service(text: &str, last: u8) -> (ServiceName, Option<Arc<NamedService>>) {
    let entry = NamedService {
        leaving: Vec::new(),
        service: name(text),
        address: Ipv4Addr::new(100, 80, 0, last),
        slots: Vec::new(),
        nearest: false,
        ports: Vec::new(),
        endpoints: Vec::new(),
    };
    (name(text), Some(Arc::new(entry)))
}

fn needs(of: &str, services: &[&str]) -> NamesUpdate {
    let services = services.iter().map(|it| name(it)).collect();
    NamesUpdate {
        needs: [(node(of), services)].into(),
        ..NamesUpdate::default()
    }
}

fn changed(services: &[(&str, u8)]) -> NamesUpdate {
    let services = services.iter().map(|(name, last)| service(name, *last));
    NamesUpdate {
        services: services.collect(),
        ..NamesUpdate::default()
    }
}

fn named(names: &Names) -> Vec<String> {
    let services = names.services.iter();
    services
        .map(|it| format!("{} {}", it.service, it.address))
        .collect()
}

#[tokio::test]
async fn a_follower_gets_everything_and_then_what_has_changed_for_its_node() {
    let feed = NamesFeed::new("s".to_owned());
    assert_eq!(feed.next(&node("w1"), None, NOW).await, None, "nothing yet");
    feed.publish(NamesUpdate {
        needs: needs("w1", &["db", "cache"]).needs,
        ..changed(&[("db", 1), ("cache", 2), ("secret", 3)])
    });
    let first = feed.next(&node("w1"), None, NOW).await.unwrap();
    assert!(first.whole);
    assert_eq!(named(&first), ["cache 100.80.0.2", "db 100.80.0.1"]);

    // What the node does not need neither wakes it nor is sent.
    feed.publish(changed(&[("secret", 4)]));
    let version = Some(first.version.as_str());
    assert_eq!(feed.next(&node("w1"), version, NOW).await, None);
    feed.publish(changed(&[("db", 5)]));
    let second = feed.next(&node("w1"), version, NOW).await.unwrap();
    assert!(!second.whole);
    assert_eq!(named(&second), ["db 100.80.0.5"]);

    feed.publish(needs("w1", &["cache", "secret"]));
    let third = feed.next(&node("w1"), Some(&second.version), NOW).await;
    let third = third.unwrap();
    assert_eq!(named(&third), ["secret 100.80.0.4"]);
    assert_eq!(third.gone, [name("db")]);
    // One that missed the second one gets both changes.
    let late = feed.next(&node("w1"), version, NOW).await.unwrap();
    assert_eq!((named(&late), late.gone), (named(&third), third.gone));
}

#[tokio::test]
async fn another_node_gets_what_it_needs_and_no_more() {
    let feed = NamesFeed::new("s".to_owned());
    feed.publish(NamesUpdate {
        needs: needs("w1", &["db"]).needs,
        ..changed(&[("db", 1)])
    });
    let other = feed.next(&node("w2"), None, NOW).await.unwrap();
    assert!(other.whole && other.services.is_empty());
    let version = Some(other.version.as_str());
    feed.publish(changed(&[("db", 2)]));
    assert_eq!(feed.next(&node("w2"), version, NOW).await, None);
}

#[tokio::test]
async fn a_version_of_another_start_or_one_that_is_too_old_gets_everything() {
    let feed = NamesFeed::new("s".to_owned());
    feed.publish(NamesUpdate {
        needs: needs("w1", &["db"]).needs,
        ..changed(&[("db", 1)])
    });
    let foreign = feed.next(&node("w1"), Some("t-1"), NOW).await.unwrap();
    assert!(foreign.whole);
    let many: Vec<String> = (0..=MAX_REMEMBERED).map(|it| format!("s{it}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    feed.publish(needs("w1", &many));
    feed.publish(needs("w1", &["db"]));
    let old = Some(foreign.version.as_str());
    let recent = feed.next(&node("w1"), old, NOW).await.unwrap();
    assert!(recent.whole);
    assert_eq!(named(&recent), ["db 100.80.0.1"]);
}
