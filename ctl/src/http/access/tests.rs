use super::*;
use crate::http::openapi;

fn callers() -> [Caller; 6] {
    let certificate = |text: &str| Caller::Certificate(Identity::parse(text).unwrap());
    [
        Caller::Anonymous,
        Caller::Sysadmin,
        Caller::AgentToken,
        certificate("controller"),
        certificate("node:w1"),
        certificate("balancer:b1"),
    ]
}

fn allowed(method: &str, path: &str) -> String {
    let access = Access::of(&method.parse().unwrap(), path);
    let flag = |caller: &Caller| if access.allows(caller) { 'y' } else { '-' };
    callers().iter().map(flag).collect()
}

/// Every operation that the router documents, which is every one it has; templates are filled in.
#[test]
fn every_route_and_identity_is_as_in_the_table() {
    let (_, document) = openapi::documented();
    let document = serde_json::to_value(document).unwrap();
    let mut seen = Vec::new();
    for (template, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let path = template.replace("{name}", "x").replace("{id}", "x-1");
            let expected = match (method.as_str(), path.as_str()) {
                ("GET", "/healthz") => "yyyyyy",
                ("POST", "/v1/reports" | "/v1/certificates" | "/v1/secret_values") => "--y-y-",
                ("GET", "/v1/names") => "--y-y-",
                ("POST", "/v1/balancer_certificates") => "-y---y",
                _ => "-y----",
            };
            assert_eq!(allowed(&method, &path), expected, "{method} {path}");
            seen.push(path);
        }
    }
    assert!(seen.len() > 20 && seen.contains(&"/v1/reports".to_owned()));
}

#[test]
fn undocumented_routes_are_as_in_the_table() {
    let blob = "/v2/tucano/images/blobs/sha256:0";
    for (method, path, expected) in [
        ("GET", blob, "-yy-y-"),
        ("HEAD", blob, "-y----"),
        ("DELETE", blob, "-y----"),
        ("PUT", blob, "-y----"),
        ("GET", "/v1/routes", "-y---y"),
        ("POST", "/v1/balancer_reports", "-y---y"),
        ("GET", "/openapi.json", "-y----"),
        ("GET", "/v1/reports/", "-y----"),
        ("GET", "/healthz/", "-y----"),
        ("GET", "/", "-y----"),
        ("GET", "/v2", "-y----"),
        ("GET", "/v2/", "-y----"),
        ("GET", "/v2/hello/blobs/sha256:0", "-y----"),
        ("GET", "/v2/hello/manifests/1", "-y----"),
        ("GET", "/v2/tucano/images/blobs/uploads/x", "-y----"),
        ("GET", "/v2/tucano/images/manifests/sha256:0", "-y----"),
        ("GET", "/v2/tucano/images/../images/blobs/x", "-y----"),
    ] {
        assert_eq!(allowed(method, path), expected, "{method} {path}");
    }
}
