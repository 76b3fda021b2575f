use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in [
        "tucano --json --api http://a:1 ps hello",
        "tucano ps hello --json --api http://a:1",
    ] {
        let arguments = parse(line).unwrap();
        assert!(arguments.global.json, "{line}");
        assert_eq!(arguments.global.api, "http://a:1");
        assert!(
            matches!(arguments.command, Command::Ps { service: Some(name), .. } if name.as_str() == "hello")
        );
    }
}

#[test]
fn defaults_are_as_documented() {
    let Command::Deploy(deploy) = parse("tucano deploy a.toml").unwrap().command else {
        panic!("not parsed as `deploy`");
    };
    assert_eq!(
        (deploy.wait.no_wait, deploy.wait.timeout),
        (false, Duration::from_secs(120))
    );
    let Command::Dev(dev) = parse("tucano dev").unwrap().command else {
        panic!("not parsed as `dev`");
    };
    assert_eq!(
        (dev.workers, dev.balancer),
        (3, "127.0.0.1:8080".parse().unwrap())
    );
}

#[test]
fn invalid_command_lines_are_usage_errors() {
    for line in [
        "tucano",
        "tucano fly",
        "tucano scale hello 0",
        "tucano scale hello 10001",
        "tucano scale Hello 1",
        "tucano deploy",
        "tucano deploy a --timeout soon",
        "tucano logs a --stream stdin",
        "tucano exec a",
        "tucano exec a -tT -- sh",
        "tucano dev --workers 0",
        "tucano ps --token a --token-file b",
        "tucano check a.toml --token b",
        "tucano --api http://a check a.toml",
        "tucano dev --token-file a",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn exec_takes_the_options_of_docker_exec() {
    let Command::Exec(exec) = parse("tucano exec -it web -- sh -c x").unwrap().command else {
        panic!("not parsed as `exec`");
    };
    assert!(exec.terminal && !exec.no_terminal);
    assert_eq!(exec.command, ["sh", "-c", "x"]);
}

#[test]
fn a_token_is_never_shown() {
    let arguments = parse("tucano ps --token secret").unwrap();
    assert!(!format!("{arguments:?}").contains("secret"));
}
