use super::*;

fn token(file: PathBuf, overlap: Duration) -> AgentToken {
    let current = fs::read_to_string(&file).unwrap();
    AgentToken {
        file: Some(file),
        overlap,
        state: Mutex::new(State {
            current: Some(Token::from(current.trim())),
            ..State::default()
        }),
    }
}

#[test]
fn a_replaced_file_is_read_again_and_both_tokens_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "old-token\n").unwrap();
    let token_of = token(file.clone(), Duration::from_secs(600));
    fs::write(&file, "new-token\n").unwrap();
    assert!(token_of.matches(b"new-token") && token_of.matches(b"old-token"));
    assert!(!token_of.matches(b"") && !token_of.matches(b"new-token-"));
    assert_eq!(token_of.valid()[0], Token::from("new-token"));
    // An empty or missing file changes nothing.
    for broken in [Some(" \n"), None] {
        match broken {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        token_of.state().read_at = None;
        assert!(token_of.matches(b"new-token"));
    }
    fs::write(&file, "old-token\n").unwrap();
    let expired = token(file.clone(), Duration::ZERO);
    fs::write(&file, "new-token\n").unwrap();
    assert!(expired.matches(b"new-token") && !expired.matches(b"old-token"));
    assert!(!format!("{expired:?}").contains("token-"));
}
