use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

const SERVICE: &str = "name = \"a\"\nconcurrency = 1\nport = 80\nimage = \"a.tar\"\n";

#[test]
fn the_image_is_found_beside_the_configuration() {
    let directory = directory(&[("service.toml", SERVICE), ("a.tar", "x"), ("b.tar", "y")]);
    let at = |name| directory.path().join(name);
    for path in [directory.path().to_owned(), at("service.toml")] {
        assert_eq!(
            Source::of_service(&path, None).unwrap().image,
            Some(at("a.tar"))
        );
    }
    let other = Source::of_service(directory.path(), Some(&at("b.tar"))).unwrap();
    assert_eq!(other.image, Some(at("b.tar")));
    let beside = Source::of_service_or_image(&at("b.tar")).unwrap();
    assert_eq!(
        (beside.config.name.as_str(), beside.image),
        ("a", Some(at("b.tar")))
    );
}

#[test]
fn a_digest_needs_no_upload_and_a_missing_image_is_an_error() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let directory = directory(&[
        ("digest.toml", &SERVICE.replace("a.tar", &digest)),
        ("none.toml", &SERVICE.replace("image", "# image")),
        ("gone.toml", SERVICE),
        ("plain/x", ""),
    ]);
    let source = |name| Source::of_service(&directory.path().join(name), None);
    assert_eq!(source("digest.toml").unwrap().image, None);
    let none = source("none.toml").unwrap_err();
    assert!(
        none.exit_code() == 3 && none.to_string().contains("--image"),
        "{none}"
    );
    assert!(
        source("gone.toml")
            .unwrap_err()
            .to_string()
            .contains("a.tar")
    );
    let plain = Source::of_service(
        &directory.path().join("gone.toml"),
        Some(&directory.path().join("plain")),
    );
    assert!(plain.unwrap_err().to_string().contains("oci-layout"));
    let nothing = Source::of_service_or_image(&directory.path().join("plain")).unwrap_err();
    assert!(nothing.to_string().contains("no service.toml"), "{nothing}");
}

#[test]
fn an_image_reference_needs_no_upload_unless_a_file_has_that_name() {
    let directory = directory(&[
        ("tag.toml", &SERVICE.replace("a.tar", "team/hello:1.0")),
        ("digest.toml", &SERVICE.replace("a.tar", "hello@sha256:00")),
        ("file.toml", &SERVICE.replace("a.tar", "odd:name")),
        ("odd:name", "x"),
    ]);
    let image = |name| {
        Source::of_service(&directory.path().join(name), None)
            .unwrap()
            .image
    };
    assert_eq!((image("tag.toml"), image("digest.toml")), (None, None));
    assert_eq!(image("file.toml"), Some(directory.path().join("odd:name")));
    for file in ["hello.tar", "./a:b", "/a:b", "../a:b", "a:", ":b", "a b:c"] {
        assert!(!is_reference(file), "{file}");
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    for image in [
        "registry.example:5000/team/app:1.2",
        "registry.example/app@sha256:00",
        &digest,
    ] {
        assert!(is_reference(image), "{image}");
    }
    let other = Path::new("team/other:2");
    let source = Source::of_service(&directory.path().join("tag.toml"), Some(other)).unwrap();
    assert_eq!(
        (source.image, source.stored.as_deref()),
        (None, Some("team/other:2"))
    );
}

#[test]
fn an_image_alone_gets_a_configuration_named_after_it() {
    let directory = directory(&[("My_App.v2.tar", "x")]);
    let source = Source::of_service_or_image(&directory.path().join("My_App.v2.tar")).unwrap();
    assert_eq!(source.config.name.as_str(), "my-app-v2");
    assert_eq!(
        (source.config.concurrency, source.config.port),
        (2, Some(8080))
    );
}

#[test]
fn an_overlong_configuration_is_not_read() {
    let directory = directory(&[("service.toml", &"#".repeat(MAX_SETTINGS_BYTES + 1))]);
    let error = Source::of_service(directory.path(), None).unwrap_err();
    assert!(error.to_string().contains("the limit"), "{error}");
}

#[test]
fn configuration_files_are_read_beside_the_configuration() {
    let files = "[[file]]\npath = \"/etc/a\"\nfrom = \"conf/a.txt\"\n[[file]]\npath = \"/etc/b\"\ncontent = \"b\"\n";
    let directory = directory(&[
        ("service.toml", &format!("{SERVICE}{files}")),
        ("a.tar", "x"),
        ("conf/a.txt", "text \u{e9}\n"),
    ]);
    let source = Source::of_service(directory.path(), None).unwrap();
    let sent: ServiceConfig = parse_all("sent", &source.text).unwrap();
    assert_eq!(sent, source.config);
    let contents: Vec<_> = sent
        .file
        .iter()
        .map(|file| file.content.as_deref())
        .collect();
    assert_eq!(contents, [Some("text \u{e9}\n"), Some("b")]);
    assert!(sent.file.iter().all(|file| file.from.is_none()));

    let refused = |content: Option<&[u8]>| {
        let path = directory.path().join("conf/a.txt");
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        Source::of_service(directory.path(), None)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(Some(b"\xff")).contains("is not UTF-8 text"));
    assert!(
        refused(Some(&[b'x'; (64 << 10) + 1]))
            .contains("the limit for a configuration file is 65536 bytes")
    );
    assert!(refused(None).contains("cannot read"));
}

#[test]
fn archives_of_mounts_are_found_beside_the_configuration_and_references_are_not() {
    let mount =
        |path: &str, image: &str| format!("[[mount]]\npath = \"{path}\"\nimage = \"{image}\"\n");
    let digest = format!("sha256:{}", "0".repeat(64));
    let text = [
        SERVICE,
        &mount("/a", "models/llm:1"),
        &mount("/b", "./models.tar"),
        &mount("/c", &digest),
        &mount("/d", "conf/site.tar"),
        "[[mount]]\npath = \"/e\"\ntmpfs = \"1MiB\"\n",
    ];
    let directory = directory(&[
        ("service.toml", &text.concat()),
        ("a.tar", "x"),
        ("models.tar", "x"),
        ("conf/site.tar", "x"),
    ]);
    let source = Source::of_service(directory.path(), None).unwrap();
    let at = |name| directory.path().join(name);
    let expected = [(1, at("./models.tar")), (3, at("conf/site.tar"))];
    assert_eq!(source.mounts, expected);
    fs::remove_file(at("models.tar")).unwrap();
    let missing = Source::of_service(directory.path(), None).unwrap_err();
    let text = missing.to_string();
    assert!(
        missing.exit_code() == 3 && text.contains("models.tar"),
        "{text}"
    );
}
