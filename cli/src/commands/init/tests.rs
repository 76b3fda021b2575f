use super::*;

fn service() -> ServiceName {
    "db".parse().unwrap()
}

fn plain(image: &str) -> ImageDescription {
    described(image.to_owned(), Description::default())
}

/// The text, which can be deployed.
fn text(image: &ImageDescription) -> String {
    let text = text::of(&service(), image, Path::new("db.toml"));
    let config: Result<ServiceConfig, _> = parse_all("db.toml", &text);
    if let Err(errors) = config {
        panic!("{}\n{text}", errors.report());
    }
    text
}

#[test]
fn an_image_that_says_much_gets_a_configuration_that_says_why() {
    let health = ImageHealth::of_docker(
        vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            "pg_isready || exit 1".to_owned(),
        ],
        [10, 5, 60].map(Span::secs),
        3,
    );
    let image = ImageDescription {
        entrypoint: vec!["docker-entrypoint.sh".to_owned()],
        cmd: vec!["postgres".to_owned()],
        exposed_ports: ["5432/tcp", "8008/tcp", "53/udp", "x/tcp", "9/sctp"]
            .map(str::to_owned)
            .into(),
        user: "postgres".to_owned(),
        volumes: [
            "/var/lib/postgresql/data",
            "/var/log/data/",
            "/var/log",
            "/",
        ]
        .map(str::to_owned)
        .into(),
        working_dir: "/srv".to_owned(),
        stop_signal: "SIGINT".to_owned(),
        health: Some(health),
        ..plain("postgres:16")
    };
    insta::assert_snapshot!(text(&image));
}

#[test]
fn an_image_that_says_nothing_gets_a_configuration_too() {
    insta::assert_snapshot!(text(&plain("tool.tar")));
}

#[test]
fn what_an_image_says_stays_within_its_quotes() {
    let wicked = "x\"\nconcurrency = 9\n# \u{1b}[2J\u{7f}\u{9b}\\";
    let words = || vec![wicked.to_owned(), "y".repeat(9000)];
    let image = ImageDescription {
        entrypoint: words(),
        cmd: words(),
        user: wicked.to_owned(),
        working_dir: wicked.to_owned(),
        stop_signal: wicked.to_owned(),
        exposed_ports: words(),
        health: Some(ImageHealth::of_docker(
            words(),
            [1, 1, 1].map(Span::secs),
            1,
        )),
        ..plain(wicked)
    };
    let text = text::of(&service(), &image, Path::new(wicked));
    let config: toml::Table = text.parse().unwrap();
    assert_eq!(config["concurrency"].as_integer(), Some(1));
    assert_eq!(config["image"].as_str(), Some(wicked));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    assert!(text.len() < 9000);
}

#[test]
fn a_file_that_exists_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.toml");
    write(&path, "first").unwrap();
    let error = write(&path, "second").unwrap_err();
    assert!(error.to_string().contains("is left as it is"), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "first");
}

#[test]
fn names_are_made_of_images() {
    for (image, is_file, name) in [
        ("postgres:16", false, "postgres"),
        (
            "registry.example:5000/team/My_App@sha256:00",
            false,
            "my-app",
        ),
        ("build/shop.tar", true, "shop"),
    ] {
        assert_eq!(name_of(image, is_file).unwrap().as_str(), name);
    }
    assert!(name_of("sha256:00", false).is_err());
    assert!(name_of("___", false).is_err());
}
