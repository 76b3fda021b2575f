use super::*;

fn process(text: &str) -> Process {
    serde_json::from_str(text).unwrap()
}

#[test]
fn programs_are_searched_in_path() {
    let path = ["A=b".to_owned(), "PATH=/a/:/b::".to_owned()];
    assert_eq!(candidates("x", &path), ["/a/x", "/b/x", "./x", "./x"]);
    assert_eq!(candidates("/c/x", &path), ["/c/x"]);
    assert_eq!(candidates("x", &[]).len(), 6);
}

#[test]
fn no_argument_says_what_to_set() {
    for arguments in [vec![], vec![String::new()]] {
        let failure = Program::new(&arguments, &[]).err().unwrap();
        assert!(failure.message.contains("`args`"), "{failure}");
    }
}

#[test]
fn home_is_added_only_where_missing() {
    let user = User {
        home: Some("/srv".into()),
        ..User::default()
    };
    let without = process(r#"{"cwd":"/","user":{"uid":0,"gid":0}}"#);
    let with = process(r#"{"cwd":"/","user":{"uid":0,"gid":0},"env":["HOME=/x"]}"#);
    assert!(environment(&without, &user).contains(&"HOME=/srv".to_owned()));
    assert_eq!(environment(&with, &user), ["HOME=/x"]);
    let empty = process(r#"{"cwd":"/","user":{"uid":0,"gid":0},"env":["HOME=","A=1"]}"#);
    assert_eq!(environment(&empty, &user), ["HOME=/srv", "A=1"]);
}

#[test]
fn the_last_value_of_a_name_counts() {
    let text = r#"{"cwd":"/","user":{"uid":0,"gid":0},
            "env":["A=1","PATH=/a","HOME=/h","A=2","AB=3","PATH=/b","A=","plain"]}"#;
    let found = environment(&process(text), &User::default());
    assert_eq!(found, ["A=", "PATH=/b", "HOME=/h", "AB=3", "plain"]);
}

#[test]
fn capabilities_are_none_unless_named() {
    let none = process(r#"{"cwd":"/","user":{"uid":0,"gid":0}}"#);
    assert!(requested(&none, CapSet::Bounding).is_empty());
    let some = process(
        r#"{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_PTRACE"]}}"#,
    );
    let expected: CapsHashSet = [Capability::CAP_CHOWN, Capability::CAP_SYS_PTRACE].into();
    assert_eq!(requested(&some, CapSet::Bounding), expected);
    assert!(requested(&some, CapSet::Effective).is_empty());
}
