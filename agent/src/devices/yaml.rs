//! YAML as JSON: what descriptions of devices are written in.

use serde_json::Value;
use tucano_yaml::{Node, Options, Value as Yaml};

const OPTIONS: Options = Options {
    max_nodes: 200_000,
    max_depth: 32,
    merges: false,
    nulls: &["", "~", "null"],
};

/// Reads the only document of a text.
///
/// # Errors
/// It is no YAML, has several documents, or is too large or too deep.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let read = tucano_yaml::parse(text, OPTIONS);
    read.map(json)
        .map_err(|wrong| format!("line {}: {}", wrong.line, wrong.message))
}

fn json(node: Node) -> Value {
    match node.value {
        Yaml::Null => Value::Null,
        Yaml::Text { text, is_plain } if is_plain => plain(text),
        Yaml::Text { text, .. } => Value::String(text),
        Yaml::List(list) => list.into_iter().map(json).collect(),
        Yaml::Map(entries) => {
            let entries = entries.into_iter();
            entries.map(|it| (it.key, json(it.node))).collect()
        }
    }
}

/// Plain scalars are what Go's YAML has them for, which most descriptions are written by: `0666` is octal.
fn plain(text: String) -> Value {
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let octal = octal.filter(|digits| !digits.is_empty());
    let octal = octal.and_then(|digits| i64::from_str_radix(digits, 8).ok());
    match (text.as_str(), octal) {
        ("true", _) => Value::Bool(true),
        ("false", _) => Value::Bool(false),
        (_, Some(number)) => Value::from(number),
        _ => text.parse::<i64>().map_or(Value::String(text), Value::from),
    }
}
