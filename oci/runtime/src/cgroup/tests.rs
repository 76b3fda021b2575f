use super::*;

#[test]
fn escaping_paths_are_refused() {
    for bad in ["", "/", "..", "a/../b", "../x", "./../x"] {
        assert!(checked(bad).is_err(), "{bad}");
    }
    assert_eq!(checked("/tucano/x").unwrap(), Path::new("tucano/x"));
}

#[test]
fn sub_cgroups_are_below_the_containers_own() {
    let top = tempfile::tempdir().unwrap();
    for place in ["cpu/sub", "pids/sub", "pids/other"] {
        fs::create_dir_all(top.path().join(place)).unwrap();
        fs::write(top.path().join(place).join("cgroup.procs"), "").unwrap();
    }
    let directories = ["cpu", "pids"].map(|name| (name.to_owned(), top.path().join(name)));
    let own = Cgroup {
        directories: directories.into(),
    };
    let below = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        own.below(&paths)
            .map(|cgroup| cgroup.directories.into_iter().map(|(_, path)| path))
    };
    let all: Vec<_> = below(&["/sub"]).unwrap().collect();
    assert_eq!(
        all,
        [top.path().join("cpu/sub"), top.path().join("pids/sub")]
    );
    let one: Vec<_> = below(&["pids:other"]).unwrap().collect();
    assert_eq!(one, [top.path().join("cpu"), top.path().join("pids/other")]);
    for bad in ["missing", "../cpu", "rdma:sub", "cpu:other"] {
        assert!(below(&[bad]).is_err(), "{bad}");
    }
}
