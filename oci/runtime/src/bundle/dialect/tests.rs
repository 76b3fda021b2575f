use super::*;

fn parsed(process: &str) -> (Process, Vec<String>) {
    let mut warnings = Vec::new();
    (
        super::process(process.as_bytes(), &mut warnings).unwrap(),
        warnings,
    )
}

#[test]
fn a_process_without_user_is_roots() {
    for user in ["", r#""user":null,"#, r#""user":{},"#] {
        let (process, warnings) = parsed(&format!(r#"{{{user}"cwd":"/","args":["x"]}}"#));
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert!(warnings.is_empty());
    }
}

#[test]
fn unknown_capabilities_are_ignored_with_one_warning() {
    let (process, warnings) = parsed(
        r#"{"cwd":"/","user":{"uid":0,"gid":0},"capabilities":{
                "bounding":["CAP_KILL","CAP_FLY"],"permitted":["CAP_FLY","CAP_DIVE"]}}"#,
    );
    let sets = process.capabilities().as_ref().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    assert!(sets.permitted().as_ref().unwrap().is_empty());
    assert_eq!(
        warnings,
        ["unknown capabilities are ignored: CAP_DIVE, CAP_FLY"]
    );
}

#[test]
fn scheduler_flags_have_the_specifications_names() {
    let (process, _) = parsed(
        r#"{"cwd":"/","user":{"uid":0,"gid":0},"scheduler":{"policy":"SCHED_BATCH","flags":[
                "SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_RECLAIM",
                "SCHED_FLAG_KEEP_POLICY","SCHED_FLAG_KEEP_PARAMS","SCHED_FLAG_UTIL_CLAMP_MIN",
                "SCHED_FLAG_UTIL_CLAMP_MAX"]}}"#,
    );
    let scheduler = process.scheduler().as_ref().unwrap();
    assert_eq!(scheduler.flags().as_ref().unwrap().len(), 7);
}

#[test]
fn what_is_wrong_elsewhere_is_reported_by_its_place() {
    let text = b"{\"cwd\":\"/\",\n\"args\":7}";
    let error = super::process(text, &mut Vec::new()).unwrap_err();
    assert_eq!(error.line(), 2);
}

#[test]
fn destinations_are_paths_from_the_root() {
    let mut warnings = Vec::new();
    let text = r#"{"ociVersion":"1.0.2","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW",
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_OF_TOMORROW"]}},
            "mounts":[{"destination":"data"},{"destination":"/a/./../b"},{"destination":"/"}]}"#;
    let spec = spec(text.as_bytes(), &mut warnings).unwrap();
    let mounts = spec.mounts().as_ref().unwrap();
    let paths: Vec<_> = mounts
        .iter()
        .map(|mount| mount.destination().to_str())
        .collect();
    assert_eq!(paths, [Some("/data"), Some("/b"), Some("/")]);
    assert!(
        warnings.len() == 1 && warnings[0].contains("data"),
        "{warnings:?}"
    );
}
