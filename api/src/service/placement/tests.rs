use crate::{
    service::ServiceConfig,
    settings::{parse, parse_all},
};

fn errors(more: &str) -> Vec<String> {
    let text = format!("name = \"web\"\nport = 80\n{more}");
    match parse_all::<ServiceConfig>("x", &text) {
        Ok(config) => panic!("{config:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn rules_that_contradict_each_other_are_refused_with_their_key() {
    for (more, parts) in [
        (
            "",
            &["concurrency: 0 processes cannot be kept alive, and a missing key counts as 0"][..],
        ),
        ("concurrency = 0", &["concurrency: 0 processes cannot"]),
        (
            "concurrency = 2\nplacement = { everywhere = true }",
            &["concurrency: is for services without `placement.everywhere`"],
        ),
        (
            "placement = { everywhere = true, spread = \"zone\" }",
            &["placement.spread: has no meaning"],
        ),
        (
            "placement = { everywhere = true }\n[[volume]]\nname = \"a\"\npath = \"/a\"\nsize = \"8MiB\"",
            &["placement.everywhere: is not for services with volumes"],
        ),
        (
            "concurrency = 1\nplacement = { with = [\"db\", \"db\"], apart_from = [\"db\"] }",
            &[
                "placement.with: names db twice",
                "placement.apart_from: names db, as `with`",
            ],
        ),
        (
            "concurrency = 1\nplacement = { with = [\"web\"] }",
            &["placement.with: names the service itself"],
        ),
        (
            "concurrency = 1\nplacement = { labels = { \"a b\" = \"c\" } }",
            &["label \"a b\" is not valid"],
        ),
        (
            "concurrency = 1\ncpus_reserved = 0",
            &["cpus_reserved: write a number from 0.001"],
        ),
        (
            "concurrency = 1\ncpus_reserved = 2\ncpus = 1.5",
            &["cpus_reserved: 2 is more than `cpus`, 1.5"],
        ),
    ] {
        let errors = errors(more);
        assert_eq!(errors.len(), parts.len(), "{more}: {errors:?}");
        for part in parts {
            assert!(
                errors.iter().any(|it| it.contains(part)),
                "{more}: {errors:?}"
            );
        }
    }
}

#[test]
fn agents_get_a_configuration_without_rules_of_placement() {
    let text = "name = \"web\"\nport = 80\ncpus_reserved = 0.25\nplacement = { everywhere = true, labels = { zone = \"a\" } }";
    let config: ServiceConfig = parse("x", text).unwrap();
    assert_eq!((config.concurrency, config.reserved_millicpus()), (0, 250));
    let text = serde_json::to_string(&config.for_agents()).unwrap();
    assert!(
        !text.contains("placement") && !text.contains("cpus_reserved"),
        "{text}"
    );
    let config: ServiceConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(config.concurrency, 1);
}
