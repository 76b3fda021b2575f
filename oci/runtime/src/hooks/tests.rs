use super::*;

fn hooks(script: &str, timeout: Option<u64>) -> Vec<Hook> {
    let mut hook = serde_json::json!({
        "path": "/bin/sh", "args": ["name", "-c", script], "env": ["PLACE=here"]
    });
    if let Some(timeout) = timeout {
        hook["timeout"] = timeout.into();
    }
    vec![serde_json::from_value(hook).unwrap()]
}

fn try_run(script: &str, timeout: Option<u64>) -> Result<(), Failure> {
    let mut state = State::default();
    state.set_id("box".into());
    run("prestart", Some(&hooks(script, timeout)), &state)
}

#[test]
fn a_hook_reads_the_state_and_has_its_own_environment() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let script = format!(
        "(/bin/cat; echo; echo $PLACE ${{HOME-none}}) > {}",
        out.display()
    );
    try_run(&script, Some(60)).unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    let (state, rest) = text.split_once('\n').unwrap();
    let state: State = serde_json::from_str(state).unwrap();
    assert_eq!(state.id(), "box");
    assert_eq!(rest, "here none\n");
}

#[test]
fn a_hook_without_env_has_the_runtimes_on_the_host_and_none_in_a_container() {
    let hook: Hook = serde_json::from_value(serde_json::json!({"path": "/x"})).unwrap();
    assert_eq!(command(&hook, Side::Runtime).get_envs().count(), 0);
    assert!(!format!("{:?}", command(&hook, Side::Runtime)).contains("env -i"));
    assert!(format!("{:?}", command(&hook, Side::Container)).contains("env -i"));
    let empty = serde_json::json!({"path": "/x", "env": []});
    let empty: Hook = serde_json::from_value(empty).unwrap();
    assert!(format!("{:?}", command(&empty, Side::Runtime)).contains("env -i"));
}

#[test]
fn failing_and_hanging_hooks_are_errors() {
    let failed = try_run("exit 3", None).unwrap_err();
    assert!(
        failed.to_string().contains("prestart hook /bin/sh"),
        "{failed}"
    );
    assert!(failed.to_string().contains('3'), "{failed}");
    let endless = try_run("exec /bin/sleep 1000", Some(1)).unwrap_err();
    assert!(endless.message.contains("did not exit within"), "{endless}");
}

#[test]
fn a_failed_hook_stops_the_others_except_for_poststop() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let mut all = hooks("exit 1", None);
    all.extend(hooks(&format!(": > {}", mark.display()), None));
    assert!(run("prestart", Some(&all), &State::default()).is_err());
    assert!(!mark.exists());
    assert_eq!(run_all("poststop", Some(&all), &State::default()).len(), 1);
    assert!(mark.exists());
}
