use super::*;

fn body(ids: &[&str], port: u16) -> Vec<u8> {
    let processes: Vec<_> = ids
        .iter()
        .map(|id| {
            serde_json::json!({
                "id": id, "revision": 1, "image": format!("sha256:{}", "0".repeat(64)),
                "config": { "name": "a", "concurrency": 1, "port": port },
            })
        })
        .collect();
    serde_json::json!({ "node": "w1", "generation": 2, "processes": processes })
        .to_string()
        .into_bytes()
}

#[test]
fn a_valid_desired_set_is_parsed() {
    let set = parse(&body(&["a-1", "a-2"], 80), 2).unwrap();
    assert_eq!((set.generation, set.processes.len()), (Generation(2), 2));
}

#[test]
fn invalid_desired_sets_are_refused() {
    for (body, most, part) in [
        (b"{".to_vec(), 9, "not a desired set"),
        (body(&["a-1", "a-1"], 80), 9, "a-1 is listed twice"),
        (body(&["a-1"], 0), 9, "a-1: port"),
        (body(&["a-1", "a-2"], 80), 1, "limits.processes"),
        (body(&["../a-1"], 80), 9, "process id"),
    ] {
        let error = parse(&body, most).unwrap_err();
        assert_eq!(error.0, StatusCode::BAD_REQUEST);
        assert!(error.1.error.contains(part), "{}", error.1.error);
    }
}
