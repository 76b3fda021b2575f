use super::*;
use crate::settings::{parse, parse_all};

fn parsed(more: &str) -> Result<ServiceConfig, String> {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
    parse_all("a.toml", &text).map_err(|errors| errors.to_string())
}

#[test]
fn a_file_has_a_path_a_text_and_defaults() {
    let config = parsed("[[file]]\npath = \"/etc/app.toml\"\ncontent = \"x\"").unwrap();
    let [file] = config.file.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!((file.mode.bits(), file.uid, file.gid), (0o444, 0, 0));
    assert!(!file.mode.is_executable());
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(parse::<ServiceConfig>("again", &text).unwrap(), config);
    let more =
        "[[file]]\npath = \"/run.sh\"\nfrom = \"run.sh\"\nmode = \"755\"\nuid = 65535\ngid = 1";
    let config = parsed(more).unwrap();
    assert!(config.file[0].mode.is_executable());
    assert_eq!(config.file[0].mode.to_string(), "0755");
}

#[test]
fn wrong_files_are_refused_with_their_index() {
    let file = |path: &str| format!("[[file]]\npath = \"{path}\"\ncontent = \"x\"\n");
    for (more, expected) in [
        (file("etc/x"), "not the path of a file"),
        (file("/etc/../x"), "not the path of a file"),
        (file("/etc//x"), "not the path of a file"),
        (file("/etc/x/"), "not the path of a file"),
        (file("/"), "not the path of a file"),
        (file(""), "not the path of a file"),
        (file("/a\\u0000b"), "not the path of a file"),
        (
            file(&format!("/{}", "x".repeat(4095))),
            "at most 4095 bytes",
        ),
        (file("/proc/x"), "below /proc"),
        (file("/dev"), "below /dev"),
        (file("/etc/resolv.conf"), "by its agent"),
        (
            file("/x") + &file("/x"),
            "file[1].path: \"/x\" is the path of file[0] already",
        ),
        (file("/x") + &file("/x/y"), "one is below the other"),
        (file("/x/y") + &file("/x"), "one is below the other"),
        (file("/x") + "uid = 65536", "uid: 65536 is out of range"),
        (file("/x") + "mode = \"4755\"", "no permissions"),
        (file("/x") + "mode = \"rw\"", "no permissions"),
        (file("/x") + "from = \"y\"", "only one of content and from"),
        (
            "[[file]]\npath = \"/x\"".to_owned(),
            "write the file's text",
        ),
    ] {
        let error = parsed(&more).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("file["),
            "{more}: {error}"
        );
    }
    // Beside, not below.
    assert!(parsed(&(file("/x") + &file("/xy"))).is_ok());
}

#[test]
fn files_are_bounded() {
    let file = |index: usize, bytes: usize| {
        format!(
            "[[file]]\npath = \"/f{index}\"\ncontent = \"{}\"\n",
            "x".repeat(bytes)
        )
    };
    let config = |texts: &[String]| {
        let text = format!(
            "name = \"a\"\nconcurrency = 1\nport = 80\n{}",
            texts.concat()
        );
        let config: ServiceConfig = toml::from_str(&text).unwrap();
        let problems = problems(&config);
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect::<String>()
    };
    assert_eq!(config(&[file(0, MAX_FILE_BYTES)]), "");
    assert!(config(&[file(0, MAX_FILE_BYTES + 1)]).contains("the limit is 65536 bytes"));
    let many: Vec<_> = (0..=MAX_FILES).map(|index| file(index, 1)).collect();
    assert!(config(&many).contains("the limit is 64"));
    let large: Vec<_> = (0..9).map(|index| file(index, MAX_FILE_BYTES)).collect();
    assert!(config(&large).contains("the limit is 524288 bytes"));
}
