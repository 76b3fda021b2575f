use super::*;

fn bundle(config: &str) -> (tempfile::TempDir, Result<Bundle, Error>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rootfs")).unwrap();
    std::fs::write(directory.path().join("config.json"), config).unwrap();
    let loaded = Bundle::load(directory.path());
    (directory, loaded)
}

#[test]
fn relative_paths_are_the_bundles() {
    let (directory, loaded) = bundle(
        r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},
                "process":{"cwd":"/","args":["x"],"user":{"uid":0,"gid":0}},"linux":{},
                "mounts":[{"destination":"/a","source":"data","options":["rbind"]},
                          {"destination":"/b","type":"tmpfs","source":"tmpfs"}]}"#,
    );
    let spec = loaded.unwrap().spec;
    let place = directory.path().canonicalize().unwrap();
    assert_eq!(spec.root().as_ref().unwrap().path(), &place.join("rootfs"));
    let mounts = spec.mounts().as_ref().unwrap();
    assert_eq!(mounts[0].source(), &Some(place.join("data")));
    assert_eq!(mounts[1].source(), &Some(PathBuf::from("tmpfs")));
}

#[test]
fn the_default_configuration_can_be_used_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rootfs")).unwrap();
    write_default(directory.path(), false).unwrap();
    let spec = Bundle::load(directory.path()).unwrap().spec;
    assert_eq!(spec.process().as_ref().unwrap().terminal(), Some(true));
    assert!(matches!(
        write_default(directory.path(), false),
        Err(Error::Write { .. })
    ));
}

#[test]
fn an_invalid_bundle_is_an_error() {
    assert!(matches!(
        Bundle::load(Path::new("/nowhere")),
        Err(Error::Read { .. })
    ));
    assert!(matches!(bundle("{").1, Err(Error::Config { .. })));
    let (_directory, no_root) = bundle(
        r#"{"ociVersion":"1.0.2","root":{"path":"elsewhere"},"linux":{},
                "process":{"cwd":"/","args":["x"],"user":{"uid":0,"gid":0}}}"#,
    );
    assert!(matches!(no_root, Err(Error::Read { .. })));
}
