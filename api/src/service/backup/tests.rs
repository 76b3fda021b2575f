use super::*;
use crate::settings::parse;

const SERVICE: &str = "name = \"db\"\nconcurrency = 1\nport = 5432\n[[volume]]\nname = \"data\"\npath = \"/data\"\nsize = \"1GiB\"\n";

fn config(backup: &str) -> Result<ServiceConfig, String> {
    let text = format!("{SERVICE}backup = {{ {backup} }}");
    parse("db.toml", &text).map_err(|error| error.to_string())
}

#[test]
fn a_backup_has_defaults() {
    let config =
        config("every = \"6h\", to = \"s3://backups/shop\", password = \"restic\"").unwrap();
    let backup = config.volume[0].backup.clone().unwrap();
    assert_eq!(backup.keep, 14);
    assert_eq!(backup.freeze_at_most, Span::secs(10));
    let names: Vec<_> = config.backup_secrets().map(ToString::to_string).collect();
    assert_eq!(names, ["restic"]);
}

#[test]
fn an_impossible_backup_is_refused_by_its_key() {
    let of = |more: &str| format!("to = \"s3://backups\", password = \"p\", {more}");
    for (backup, expected) in [
        (
            "to = \"/srv\", password = \"p\"".to_owned(),
            "write s3://bucket/prefix, or file:///directory",
        ),
        (
            "to = \"file://srv\", password = \"p\"".to_owned(),
            "is not the path of a directory",
        ),
        (
            "to = \"file:///srv/../etc\", password = \"p\"".to_owned(),
            "is not the path of a directory",
        ),
        (
            "to = \"s3://B\", password = \"p\"".to_owned(),
            "is not a bucket with a prefix",
        ),
        (
            "to = \"s3://backups/a//b\", password = \"p\"".to_owned(),
            "is not a bucket with a prefix",
        ),
        (
            of("every = \"1s\""),
            "volume[0].backup.every: write at least",
        ),
        (
            of("keep = 0"),
            "volume[0].backup.keep: 0 is out of range: write 1 to 10000",
        ),
        (
            of("freeze_at_most = \"1h\""),
            "volume[0].backup.freeze_at_most: write at most",
        ),
        (
            of("endpoint = \"s3.example\""),
            "volume[0].backup.endpoint: write a URL",
        ),
        (
            of("load = [\"psql\"]"),
            "volume[0].backup.load: there is no `dump`",
        ),
        (
            of("dump = [\"pg_dumpall\"]"),
            "volume[0].backup.dump: say with `load`",
        ),
        (
            of("dump = [\"\"], load = [\"psql\"]"),
            "the first one is empty",
        ),
        (
            "to = \"file:///srv/b\", password = \"p\", region = \"x\"".to_owned(),
            "only a repository in an S3 bucket has one",
        ),
        (of("hourly = true"), "unknown key \"hourly\""),
    ] {
        let error = config(&backup).unwrap_err();
        assert!(error.contains(expected), "{backup}: {error}");
    }
}

#[test]
fn a_changed_backup_restarts_nothing() {
    let before = config("to = \"s3://backups\", password = \"p\"").unwrap();
    let after = config("to = \"s3://others\", password = \"p\", keep = 3").unwrap();
    assert_eq!(before.change_to(&after), crate::service::Effect::Nothing);
    assert!(
        before.for_agents().volume[0].backup.is_none(),
        "agents get orders"
    );
}
