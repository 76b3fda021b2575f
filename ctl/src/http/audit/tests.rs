use super::*;

#[test]
fn each_request_that_changes_something_has_a_kind() {
    for (method, path, expected) in [
        ("GET", "/v1/services", None),
        ("HEAD", "/v2/a/manifests/1", None),
        ("POST", "/v1/reports", None),
        ("POST", "/v1/certificates", None),
        ("POST", "/v1/services", Some("deploy")),
        ("POST", "/v1/services/", Some("deploy")),
        ("PATCH", "/v1/services/web", Some("change")),
        ("DELETE", "/v1/services/web", Some("remove")),
        ("POST", "/v1/services/web/rollback", Some("rollback")),
        ("POST", "/v1/services/web/exec", Some("exec")),
        ("POST", "/v1/processes/web-1/exec", Some("exec")),
        ("PUT", "/v2/team/app/manifests/1.0", Some("push")),
        ("DELETE", "/v2/team/app/manifests/1.0", Some("delete")),
        ("POST", "/v2/team/app/blobs/uploads/", None),
        ("PATCH", "/v2/team/app/blobs/uploads/1", None),
        ("POST", "/v1/anything/new", Some("request")),
    ] {
        let method = method.parse().unwrap();
        assert_eq!(action(&method, path), expected, "{method} {path}");
    }
}

#[test]
fn results_and_identities_follow_from_the_status() {
    let status = |code| Some(StatusCode::from_u16(code).unwrap());
    for (code, expected) in [
        (201, ("done", "token")),
        (101, ("done", "token")),
        (401, ("denied", "nobody")),
        (409, ("refused", "token")),
        (500, ("failed", "token")),
    ] {
        assert_eq!(
            (result(status(code)), identity(true, status(code))),
            expected
        );
    }
    assert_eq!(
        (result(None), identity(false, None)),
        ("the client disconnected", "local")
    );
}

#[test]
fn what_a_client_sends_cannot_forge_a_line_of_the_log() {
    assert_eq!(shown("/v1/a\nb"), "/v1/a b");
    assert_eq!(shown(&"x".repeat(1000)).len(), MAX_SHOWN);
}
