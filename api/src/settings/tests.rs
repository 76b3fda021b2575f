use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    concurrency: u32,
    port: u16,
    #[serde(default)]
    nested: Option<Nested>,
    #[serde(default)]
    list: Vec<Nested>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    interval: u32,
    #[serde(default)]
    kind: Kind,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Worker,
    Controller,
}

impl Validate for Example {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.concurrency == 0 {
            problems.push(Problem::new("concurrency", "must be at least 1"));
        }
        if u32::from(self.port) < self.concurrency {
            let problem = Problem::new("port", "must not be less than `concurrency`");
            problems.push(problem.depending_on("concurrency"));
        }
        for (index, nested) in self.list.iter().enumerate() {
            if nested.interval == 0 {
                let key = format!("list[{index}].interval");
                problems.push(Problem::new(key, "must not be 0"));
            }
        }
        problems
    }
}

fn errors(text: &str) -> Vec<String> {
    let errors = parse_all::<Example>("x.toml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_valid_text_reads_in_both_notations() {
    for text in [
        "concurrency = 1\nport = 2\nnested = { interval = 2 }\n[[list]]\ninterval = 1\nkind = \"controller\"",
        "{\"concurrency\":1,\"port\":2,\"nested\":{\"interval\":2},\"list\":[{\"interval\":1,\"kind\":\"controller\"}]}",
    ] {
        let example: Example = parse("x", text).unwrap();
        assert_eq!((example.concurrency, example.port), (1, 2));
        assert_eq!(example.nested.unwrap().interval, 2);
        assert!(matches!(example.list[0].kind, Kind::Controller));
    }
}

#[test]
fn every_error_is_reported_at_once_with_its_line_and_key() {
    let toml = "concurency = 3\nport = \"http\"\n[nested]\ninterval = \"x\"\nkind = \"wrker\"\n[[list]]\ninterval = 0\n";
    let expected = [
        "x.toml:1:1: unknown key \"concurency\": did you mean \"concurrency\"?",
        "x.toml:2:8: port: expected a whole number from 0 to 65535, found the string \"http\"",
        "x.toml:4:12: nested.interval: expected a whole number, found the string \"x\"",
        "x.toml:5:8: nested.kind: unknown value \"wrker\": did you mean \"worker\"?",
        "x.toml:7:1: list[0].interval: must not be 0",
    ];
    assert_eq!(errors(toml), expected);
    let json = "{\n \"concurency\": 3,\n \"port\": \"http\",\n \"nested\": {\n  \"interval\": \"x\",\n  \"kind\": \"wrker\" },\n \"list\": [\n  { \"interval\": 0 }]\n}";
    let expected = [
        "x.toml:2:2: unknown key \"concurency\": did you mean \"concurrency\"?",
        "x.toml:3:10: port: expected a whole number from 0 to 65535, found the string \"http\"",
        "x.toml:5:15: nested.interval: expected a whole number, found the string \"x\"",
        "x.toml:6:11: nested.kind: unknown value \"wrker\": did you mean \"worker\"?",
        "x.toml:8:5: list[0].interval: must not be 0",
    ];
    assert_eq!(errors(json), expected);
}

#[test]
fn missing_keys_are_all_reported() {
    for text in ["", "{}"] {
        let missing =
            ["concurrency", "port"].map(|key| format!("x.toml: the key {key:?} is missing"));
        assert_eq!(errors(text), missing);
    }
    let within = errors("concurrency = 1\nport = 1\n[[list]]\nkind = \"worker\"");
    assert_eq!(
        within,
        ["x.toml:3:1: list[0]: the key \"interval\" is missing"]
    );
}

#[test]
fn what_follows_from_an_earlier_error_is_not_reported() {
    assert_eq!(errors("concurrency = \"many\"\nport = 0").len(), 1);
    assert_eq!(
        errors("concurrency = 5\nport = 1"),
        ["x.toml:2:1: port: must not be less than `concurrency`"]
    );
}

#[test]
fn errors_of_the_grammar_name_no_key() {
    assert_eq!(
        errors("{\"concurrency\": 1,\n \"port\": 2,}"),
        ["x.toml:2:12: trailing comma"]
    );
    let several = errors("concurrency = \nport = 2\n[nested\n");
    assert!(
        several.len() > 1 && several[0].starts_with("x.toml:1:"),
        "{several:?}"
    );
    assert!(
        several.iter().all(|error| !error.contains("?:")),
        "{several:?}"
    );
    assert!(
        errors("{\"concurrency\": 1")
            .iter()
            .all(|error| error.contains("ends inside"))
    );
}

#[test]
fn a_doubled_key_is_reported() {
    let toml = errors("concurrency = 1\nconcurrency = 2\nport = 1");
    assert!(toml[0].starts_with("x.toml:2:1: duplicate key"), "{toml:?}");
    let json = errors("{\"concurrency\": 1, \"concurrency\": 2, \"port\": 1}");
    assert!(
        json[0].contains("the key \"concurrency\" is there twice"),
        "{json:?}"
    );
}

#[test]
fn a_text_over_the_limit_is_refused() {
    let long = errors(&"#".repeat(MAX_SETTINGS_BYTES + 1));
    assert_eq!(
        long,
        ["x.toml: the configuration has 1048577 bytes; the limit is 1048576 bytes"]
    );
}

#[test]
fn a_far_off_key_lists_what_is_known() {
    let unknown = errors("concurrency = 1\nport = 1\nzzz = 1");
    assert_eq!(
        unknown,
        ["x.toml:3:1: unknown key \"zzz\": the keys are concurrency, port, nested, list"]
    );
}

#[test]
fn the_report_marks_what_is_wrong_in_its_line() {
    let text = "port = 80\n  concurency = 3 # ü\n";
    let errors = parse_all::<Example>("hello.toml", text).unwrap_err();
    let expected = "\
hello.toml:2:3: unknown key \"concurency\": did you mean \"concurrency\"?
   |
 2 |   concurency = 3 # ü
   |   ^^^^^^^^^^";
    assert_eq!(errors.report(), expected);
}

#[test]
fn any_text_is_read_or_refused() {
    for text in [
        "{",
        "{\"\":",
        "[",
        "=",
        "\"",
        "a.b.c = 1",
        "{\"list\":[{}, {}, 7]}",
        "[[list]]\n[[list]]\n",
        "\u{0}",
        "{\"nested\":\"\u{e9}\"}",
    ] {
        let errors = errors(text);
        assert!(!errors.is_empty(), "{text:?}");
    }
}
