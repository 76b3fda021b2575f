//! The routes of the API, from the OpenAPI description that the controller serves.

use std::fmt::Write as _;

use serde_json::Value;

use super::keys::wrapped;

const HEAD: &str = "\
# The API

`GET /openapi.json` describes all of it, with every field of every body; this page lists the routes.
`/v2/` is the OCI distribution protocol, as its specification has it.

A request shows the sysadmin's token as `Authorization: Bearer <token>`, except on loopback where
none is configured. Errors are `{\"error\": \"…\", \"code\": \"…\"}`.

";

const TAIL: &str = "\
## Running a command

A request to `…/exec` has the headers `Connection: Upgrade` and `Upgrade: tucano-exec`; the answer
is 101. Then both sides send frames: a byte that names the kind, the length of the rest in four
bytes (big-endian), and at most 64 KiB of content.

| kind | from | content |
|---|---|---|
| 5 | client | first of all: `{\"command\": [\"sh\"], \"terminal\": {\"name\": \"xterm\", \"size\": {\"columns\": 80, \"rows\": 24}}}`; `terminal` and its `name` are optional |
| 0 | client | input; of length 0: its end |
| 4 | client | a new size of the terminal |
| 1, 2 | server | output, error output |
| 3 | server | last of all: `{\"exited\": 0}` or `{\"failed\": \"why\"}` |
";

pub(super) fn page() -> String {
    let (_, document) = tucano_ctl::http::openapi::documented();
    let document = serde_json::to_value(document).unwrap_or_default();
    format!("{HEAD}{}{TAIL}", routes(&document))
}

fn routes(document: &Value) -> String {
    let mut text = String::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if operation.is_object() {
                // Writing into a text cannot fail.
                write!(text, "## {} {path}\n\n", method.to_uppercase()).ok();
                text += &describe(operation);
            }
        }
    }
    text
}

fn describe(operation: &Value) -> String {
    let mut text = String::new();
    for part in ["summary", "description"] {
        if let Some(paragraph) = operation[part].as_str() {
            text += &format!("{}\n\n", wrapped(paragraph));
        }
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
        text += &format!(
            "- `?{}=`: {}\n",
            parameter["name"].as_str().unwrap_or_default(),
            line(&parameter["description"])
        );
    }
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        text += &format!("- {status}: {}\n", line(&answer["description"]));
    }
    text.push('\n');
    text
}

fn line(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_headings_and_answers() {
        let page = page();
        assert!(page.contains("## POST /v1/services\n"), "{page}");
        assert!(page.contains("\n- 201: "), "{page}");
        assert!(page.contains("`?wait=`"), "{page}");
    }
}
