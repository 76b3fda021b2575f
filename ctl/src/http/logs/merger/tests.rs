use super::*;

fn line(time: Option<u64>, text: &str) -> OwnedLine {
    OwnedLine {
        time: time.map(Timestamp),
        stream: None,
        is_complete: true,
        text: text.into(),
    }
}

#[test]
fn a_follower_that_reconnects_continues_behind_the_last_line() {
    let which = LogQuery {
        tail: Some(5),
        ..LogQuery::default()
    };
    let mut progress = Progress::default();
    assert_eq!(progress.rest(&which).tail, Some(5));
    for (time, text) in [(1, "a"), (2, "b"), (2, "c")] {
        progress.note(&line(Some(time), text));
    }
    progress.has_begun = true;
    let rest = progress.rest(&which);
    assert_eq!(
        (rest.since, rest.tail),
        (Some(Since::At(Timestamp(2))), None)
    );
    let again = [
        line(None, "older"),
        line(Some(2), "b"),
        line(Some(2), "c"),
        line(Some(2), "d"),
        line(None, "e"),
        line(Some(1), "clock set back"),
    ];
    let mut is_copied = progress.skip_copied();
    let new: Vec<_> = again.into_iter().filter(|line| !is_copied(line)).collect();
    let new: Vec<_> = new
        .iter()
        .map(|line| String::from_utf8_lossy(&line.text))
        .collect();
    assert_eq!(new, ["d", "e", "clock set back"]);
}

#[test]
fn what_has_no_times_continues_with_new_output() {
    let which = LogQuery {
        tail: Some(5),
        ..LogQuery::default()
    };
    let mut progress = Progress::default();
    progress.note(&line(None, "a"));
    progress.has_begun = true;
    assert_eq!(progress.rest(&which).tail, Some(0));
    assert!(!progress.skip_copied()(&line(None, "b")));
}

#[test]
fn a_process_that_its_node_did_not_have_yet_is_shown_from_its_start() {
    let which = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let progress = Progress {
        error: Some("why".to_owned()),
        ..Progress::default()
    };
    assert_eq!(progress.rest(&which).tail, None);
}
