use tucano_api::settings::parse;

use super::*;

fn config(name: &str, more: &str) -> ServiceConfig {
    let text = format!("name = \"{name}\"\nconcurrency = 1\nport = 80\n{more}");
    parse("x", &text).unwrap()
}

#[test]
fn services_come_after_those_that_they_need() {
    let services = [
        config("api", "needs = [\"db\", \"web\"]\nstart_after = [\"db\"]"),
        config("db", ""),
        config("side", "placement = { with = [\"web\"] }"),
        config("web", "needs = [\"api\"]"),
    ];
    let names: Vec<String> = ordered(&services).iter().map(ToString::to_string).collect();
    // The api and the web need each other: only what comes after decides.
    assert_eq!(names, ["db", "api", "web", "side"]);
}

#[test]
fn a_directory_of_configurations_is_an_application_in_the_order_of_needs() {
    let root = tempfile::tempdir().unwrap();
    let shop = root.path().join("My_Shop");
    fs::create_dir(&shop).unwrap();
    let write = |name: &str, text: &str| fs::write(shop.join(name), text).unwrap();
    write(
        "a.toml",
        "name = \"web\"\nconcurrency = 1\nport = 80\nimage = \"web:1\"\nneeds = [\"db\"]",
    );
    write(
        "b.toml",
        "name = \"db\"\nconcurrency = 1\nport = 80\nimage = \"db:1\"\napp = \"other\"",
    );
    let application = of_directory(&shop).unwrap().unwrap();
    assert_eq!(application.name.as_str(), "my-shop");
    let all = application.members.iter().map(|it| {
        let config = &it.source.config;
        (config.name.as_str(), config.app.as_ref().unwrap().as_str())
    });
    let all: Vec<_> = all.collect();
    assert_eq!(all, [("db", "other"), ("web", "my-shop")]);
    write(
        "c.toml",
        "name = \"web\"\nconcurrency = 1\nport = 80\nimage = \"web:1\"",
    );
    assert!(of_directory(&shop).is_err());
    fs::create_dir(root.path().join("empty")).unwrap();
    assert!(of_directory(&root.path().join("empty")).unwrap().is_none());
}
