use super::*;

fn spec() -> Spec {
    let text = r#"{"ociVersion":"1.0.2","process":{"terminal":true,"cwd":"/a","args":["x"],
            "env":["A=1"],"user":{"uid":1,"gid":2}}}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn exec_options_change_the_containers_process() {
    let wanted = Exec {
        command: vec!["y".into()],
        env: vec!["B=2".into()],
        user: Some("7:8".into()),
        capabilities: vec!["CAP_KILL".into(), "CHOWN".into()],
        ..Exec::default()
    };
    let (process, _) = process(&spec(), &wanted).unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["y"]);
    assert_eq!(process.env().as_ref().unwrap(), &["A=1", "B=2"]);
    assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
    assert_eq!(process.terminal(), Some(false));
    let sets = process.capabilities().as_ref().unwrap();
    assert_eq!(sets.effective().as_ref().unwrap().len(), 2);
    assert!(
        sets.inheritable()
            .as_ref()
            .is_none_or(|set| !set.contains(&Capability::Kill))
    );
}

#[test]
fn invalid_values_are_refused() {
    let refused = |wanted: &Exec| process(&spec(), wanted).unwrap_err().to_string();
    let base = Exec {
        command: vec!["y".into()],
        ..Exec::default()
    };
    let named = Exec {
        user: Some("web".into()),
        ..base.clone()
    };
    assert!(refused(&named).contains("uid"));
    let wrapped = Exec {
        user: Some("4294967295".into()),
        ..base.clone()
    };
    assert!(refused(&wrapped).contains("--user"));
    let unknown = Exec {
        capabilities: vec!["CAP_FLY".into()],
        ..base.clone()
    };
    assert!(refused(&unknown).contains("CAP_FLY"));
    let relative = Exec {
        cwd: Some("here".into()),
        ..base
    };
    assert!(refused(&relative).contains("absolute"));
}
