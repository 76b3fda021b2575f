use super::*;

#[test]
fn a_specification_has_ids_alone() {
    let process = |uid: u32, groups: &[u32]| -> Process {
        let user = serde_json::json!({ "uid": uid, "gid": 4, "additionalGids": groups });
        serde_json::from_value(serde_json::json!({ "cwd": "/", "user": user })).unwrap()
    };
    let passwd = "web:x:33:34::/srv:/bin/false\n";
    let user = User::of_specification(&process(33, &[7]), passwd).unwrap();
    let expected = User {
        uid: 33,
        gid: 4,
        groups: vec![7],
        home: Some("/srv".into()),
    };
    assert_eq!(user, expected);
    for (uid, groups) in [(NO_CHANGE, [7]), (33, [NO_CHANGE])] {
        let refused = User::of_specification(&process(uid, &groups), passwd).unwrap_err();
        assert!(refused.to_string().contains("4294967295"), "{refused}");
    }
}

fn root_with(make: impl Fn(&Path)) -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    make(&directory.path().join("etc/passwd"));
    let root = Root(File::open(directory.path()).unwrap().into());
    (directory, root)
}

#[test]
fn files_that_are_huge_or_no_files_are_refused() {
    let (_one, root) = root_with(|path| {
        File::create(path)
            .unwrap()
            .set_len(FILE_LIMIT_BYTES + 1)
            .unwrap();
    });
    assert!(matches!(
        read(&root, "/etc/passwd"),
        Err(Error::File { .. })
    ));
    let (_two, root) = root_with(|path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
    assert!(matches!(
        read(&root, "/etc/passwd"),
        Err(Error::File { .. })
    ));
    assert_eq!(read(&root, "/etc/group").unwrap(), "");
}
