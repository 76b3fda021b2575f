use super::*;

#[test]
fn both_formats_hold_the_message() {
    let text = line(LogFormat::Text, "error", "no \"such\" thing");
    assert!(
        text.contains(r#"level=error msg="no \"such\" thing""#),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&line(LogFormat::Json, "error", "a\nb")).unwrap();
    assert_eq!(
        (json["level"].as_str(), json["msg"].as_str()),
        (Some("error"), Some("a\nb"))
    );
}

#[test]
fn the_file_is_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = Log::open(Some(path.clone()), LogFormat::Json).unwrap();
    log.error("one");
    log.warning("two");
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
    let nowhere = directory.path().join("missing/log");
    assert!(Log::open(Some(nowhere), LogFormat::Json).is_err());
}

#[test]
fn a_pipe_is_not_waited_for_until_there_is_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let log = Log::open(Some(path.clone()), LogFormat::Text).unwrap();
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    log.error("one");
    assert!(reader.join().unwrap().contains("msg=\"one\""));
}
