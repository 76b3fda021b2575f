use super::*;

#[test]
fn every_documented_exit_code_is_used() {
    let refused = || "x".to_owned();
    let errors = [
        Error::Controller(refused().into()),
        Error::Usage(refused()),
        Error::Refused(refused().into()),
        Error::NotHealthy {
            message: refused(),
            failures: Vec::new(),
        },
        Error::Unreachable {
            api: refused(),
            reason: refused(),
        },
        Error::Unauthorized(refused().into()),
        Error::NotFound(refused().into()),
    ];
    for (error, code) in errors.iter().zip(1..) {
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
    }
}

#[test]
fn exec_ends_with_its_commands_exit_code_or_with_125() {
    assert_eq!(Error::Command(3).of_exec().exit_code(), 3);
    let unknown = Error::NotFound("there is no service x".to_owned().into()).of_exec();
    assert_eq!(unknown.exit_code(), 125);
    assert_eq!(unknown.to_string(), "there is no service x");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let source = io::ErrorKind::BrokenPipe.into();
    assert_eq!(Error::Output { source }.exit_code(), 0);
}
