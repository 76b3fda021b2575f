//! `volume`, and what `rm` does with volumes.

use serde_json::json;

use super::{
    code,
    controller::{Controller, Request},
    tucano,
};

fn volumes() -> String {
    let volume = |service: &str, slot: u32| {
        json!({ "id": format!("{service}/data/{slot}"), "instance": slot, "node": "w1",
                "size": 1 << 20, "configured": true, "state": "in_use" })
    };
    json!([volume("hello", 1), volume("hello", 2), volume("other", 1)]).to_string()
}

#[test]
fn rm_says_which_volumes_it_keeps_and_removes_them_only_after_a_yes() {
    let controller = Controller::start(|line, _| match line {
        "GET /v1/volumes" => (200, volumes()),
        _ => (200, "{}".to_owned()),
    });
    let kept = tucano(&controller, &["rm", "hello", "--no-wait"]);
    assert_eq!(code(&kept), 0);
    let said = String::from_utf8(kept.stderr).unwrap();
    assert!(
        said.contains("its volumes are kept: hello/data/1, hello/data/2. "),
        "{said}"
    );
    let asked = tucano(&controller, &["rm", "hello", "--volumes"]);
    assert_eq!(code(&asked), 2);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(
        said.contains("its volumes hello/data/1, hello/data/2 with all"),
        "{said}"
    );
    assert!(said.contains("add --yes"), "{said}");
    let is_removal = |request: &Request| request.line.starts_with("DELETE");
    assert_eq!(
        controller
            .requests()
            .iter()
            .filter(|it| is_removal(it))
            .count(),
        1
    );
    let removed = tucano(
        &controller,
        &["rm", "hello", "--volumes", "--yes", "--no-wait"],
    );
    assert_eq!(code(&removed), 0);
    let removal = controller.requests().pop().unwrap();
    assert_eq!(removal.line, "DELETE /v1/services/hello?volumes=true");
}

#[test]
fn volumes_are_listed_and_removed() {
    let controller = Controller::start(|line, _| match line {
        "GET /v1/volumes" => (200, volumes()),
        _ => (200, "{}".to_owned()),
    });
    let listed = tucano(&controller, &["volume", "ls"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(
        text.contains("hello/data/2") && text.contains("in use"),
        "{text}"
    );
    let json = tucano(&controller, &["--json", "volume", "ls"]);
    assert_eq!(String::from_utf8(json.stdout).unwrap().trim(), volumes());
    for odd in ["hello/data", "hello/data/0", "../data/1", "hello/data/1/"] {
        assert_eq!(
            code(&tucano(&controller, &["volume", "rm", odd, "--yes"])),
            2,
            "{odd}"
        );
    }
    assert_eq!(
        code(&tucano(&controller, &["volume", "rm", "hello/data/2"])),
        2
    );
    let count = controller.requests().len();
    let removed = tucano(&controller, &["volume", "rm", "hello/data/2", "--yes"]);
    assert_eq!(code(&removed), 0);
    let requests = controller.requests();
    assert_eq!(requests.len(), count + 1);
    assert_eq!(requests[count].line, "DELETE /v1/volumes/hello/data/2");
    let args = ["volume", "rm", "hello/data/2", "--on", "w2", "--yes"];
    assert_eq!(code(&tucano(&controller, &args)), 0);
    let last = controller.requests().pop().unwrap();
    assert_eq!(last.line, "DELETE /v1/volumes/hello/data/2?node=w2");
}
