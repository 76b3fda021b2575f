use super::*;
use crate::settings::{parse, parse_all};

fn parsed(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"db\"\nconcurrency = 2\nport = 80\n{more}");
    parse_all("db.toml", &text).map_err(|errors| errors.to_string())
}

fn secret(name: &str, more: &str) -> String {
    format!("[[secret]]\nname = \"{name}\"\n{more}\n")
}

#[test]
fn a_secret_is_a_file_or_a_variable() {
    let config = parsed(
        &(secret("db-password", "")
            + &secret("key", "path = \"/etc/key\"\nmode = \"0400\"\nuid = 5")
            + &secret("token", "env = \"TOKEN\"")),
    )
    .unwrap();
    let paths: Vec<Option<String>> = config.secret.iter().map(SecretRef::path).collect();
    let own = |path: &str| Some(path.to_owned());
    assert_eq!(
        paths,
        [own("/run/secrets/db-password"), own("/etc/key"), None]
    );
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("again", &text).unwrap(), config);
    assert_eq!(config.agent_keys().collect::<Vec<_>>(), ["secret"]);
}

#[test]
fn wrong_secrets_are_refused_with_their_index() {
    let variable = |name: &str| secret("a", &format!("env = \"{name}\""));
    for (more, expected) in [
        (secret("a/b", ""), "secret name \"a/b\""),
        (secret("..", ""), "secret name"),
        (secret("", ""), "secret name"),
        (
            secret("a", "path = \"x\""),
            "secret[0].path: \"x\" is not the path of a file",
        ),
        (secret("a", "path = \"/x/../y\""), "secret[0].path"),
        (
            secret("a", "") + &secret("a", ""),
            "secret[1].path: \"/run/secrets/a\" is the path of secret[0] already",
        ),
        (
            secret("a", "path = \"/x\"\nenv = \"X\""),
            "only one of path and env",
        ),
        (secret("a", "mode = \"4755\""), "no permissions"),
        (secret("a", "uid = 65536"), "secret[0].uid"),
        (variable(""), "is not the name of a variable"),
        (variable("A=B"), "is not the name of a variable"),
        (variable("PORT"), "PORT is set by the agent"),
        (variable("TUCANO_X"), "TUCANO_X is set by the agent"),
        (
            variable("X") + &variable("X"),
            "another secret is the variable X",
        ),
        (
            "env = { X = \"1\" }\n".to_owned() + &variable("X"),
            "`env` sets X already",
        ),
        (secret("a", "value = \"x\""), "value"),
    ] {
        let error = parsed(&more).unwrap_err();
        assert!(error.contains(expected), "{more}: {error}");
    }
    let many: String = (0..=MAX_SECRETS)
        .map(|n| secret(&format!("s{n}"), ""))
        .collect();
    assert!(parsed(&many).unwrap_err().contains("the limit is 64"));
}
