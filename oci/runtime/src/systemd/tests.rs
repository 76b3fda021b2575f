use super::*;

#[test]
fn paths_name_slice_prefix_and_container() {
    for (path, expected) in [
        (
            Some("machine.slice:libpod:c1"),
            "/machine.slice/libpod-c1.scope/container",
        ),
        (
            Some("a-b-c.slice:x:c1"),
            "/a.slice/a-b.slice/a-b-c.slice/x-c1.scope/container",
        ),
        (Some("-.slice::c1"), "/c1.scope/container"),
        (
            Some(":docker:c1"),
            "/system.slice/docker-c1.scope/container",
        ),
        (None, "/system.slice/tucano_oci-c1.scope/container"),
    ] {
        let scope = Scope::specified(path, "c1").unwrap();
        assert_eq!(scope.cgroup_path().unwrap(), expected);
    }
}

#[test]
fn invalid_scope_paths_are_refused() {
    for bad in [
        "/a/b",
        "a.slice:b",
        "a.slice:b:c:d",
        "a:b:c",
        "a--b.slice:p:c",
        "-a.slice:p:c",
        "../x.slice:p:c",
        "a.slice:../p:c",
        "a.slice:p:",
        "a.slice:p:c/../../d",
        "a.slice:p:c.slice",
    ] {
        let error = Scope::specified(Some(bad), "c1").unwrap_err();
        assert!(error.to_string().contains('"'), "{bad}: {error}");
    }
    assert!(Scope::specified(None, "a+b").is_err());
    let slice = Scope::specified(Some("a.slice:p:c.slice"), "c1").unwrap_err();
    assert!(matches!(slice, Error::Slice(_)), "{slice}");
}
