use tucano_api::settings::parse;

use super::*;

#[test]
fn a_pipe_ends_only_with_its_end_marker() {
    let (sender, mut reader) = pipe();
    for piece in [
        Piece::Bytes("ab".into()),
        Piece::Bytes("c".into()),
        Piece::End,
    ] {
        sender
            .blocking_send(piece)
            .unwrap_or_else(|_| panic!("the reader is there"));
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");

    let (sender, mut reader) = pipe();
    let sent = sender.blocking_send(Piece::Bytes("ab".into()));
    assert!(sent.is_ok());
    drop(sender);
    let error = reader.read_to_string(&mut text).unwrap_err();
    assert!(error.to_string().contains("cut off"));
}

#[test]
fn an_archives_file_name_does_not_select_an_image() {
    let named = |image: &str, file: &str| {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\nimage = {image:?}");
        name_within(&parse("x", &text).unwrap(), file)
    };
    assert_eq!(named("hello:1", "hello.tar"), Some("hello:1".to_owned()));
    let digest = format!("hello@sha256:{}", "0".repeat(64));
    assert_eq!(named(&digest, ""), Some(digest));
    for (image, file) in [("hello.tar", "x.tar"), ("a/odd:name", "odd:name")] {
        assert_eq!(named(image, file), None, "{image}");
    }
}

#[test]
fn slots_are_limited_and_released() {
    let taken = Arc::default();
    let first = Slot::take(&taken, 1);
    assert!(first.is_some() && Slot::take(&taken, 1).is_none());
    drop(first);
    assert!(Slot::take(&taken, 1).is_some());
}
