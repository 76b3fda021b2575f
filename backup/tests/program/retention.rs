//! Retention counts by volume, whatever host stored it.

use tucano_backup::{Backup, Class, List, Operation, Outcome};

use crate::support::{Place, tree};

#[test]
fn retention_is_by_volume() {
    let place = Place::initialised();
    let source = place.beside("source");
    std::fs::write(source.join("file"), b"content").expect("a file");
    let store = |volume: &str, host: &str, hour: u32, draft| {
        let backup = Backup {
            volume: volume.to_owned(),
            host: host.to_owned(),
            time: Some(format!("2026-01-01T{hour:02}:00:00Z")),
            draft,
            tags: vec![format!("hour{hour}")],
            ..tree(&source)
        };
        place.asking.backup(backup).expect("a snapshot").snapshot
    };
    // The volume moved from one host to the other.
    let first = store("shop/data/1", "w1", 1, false);
    let second = store("shop/data/1", "w2", 2, false);
    let draft = store("shop/data/1", "w2", 3, true);
    let third = store("shop/data/1", "w2", 4, false);
    let other = store("shop/data/11", "w1", 0, false);

    let mut forgotten = place.asking.forget("shop/data/1", 2);
    forgotten.forgotten.sort();
    let mut expected = vec![first, draft];
    expected.sort();
    assert_eq!((forgotten.forgotten, forgotten.kept), (expected, 2));
    let list = place.asking.list();
    let left: Vec<_> = list.snapshots.iter().map(|snapshot| &snapshot.id).collect();
    assert_eq!(left, [&third, &second, &other]);
    assert_eq!(
        place.asking.forget("shop/data/1", 2).forgotten,
        Vec::<String>::new()
    );
    assert_eq!(place.asking.forget("nobody's", 1).kept, 0);

    // Lists are filtered, and bounded.
    let filtered = |list: List| match place.asking.run(Operation::List(list)) {
        Ok(Outcome::Listed(listed)) => listed.total,
        other => panic!("{other:?}"),
    };
    let volume = Some("shop/data/1".to_owned());
    assert_eq!(
        filtered(List {
            volume,
            ..List::default()
        }),
        2
    );
    let host = Some("w1".to_owned());
    assert_eq!(
        filtered(List {
            host,
            ..List::default()
        }),
        1
    );
    let tags = vec!["hour4".to_owned()];
    assert_eq!(
        filtered(List {
            tags,
            ..List::default()
        }),
        1
    );
    let mut asking = Place::new().asking;
    asking.repository = place.asking.repository.clone();
    asking.limits.snapshots = 1;
    let list = asking.list();
    assert_eq!((list.total, list.snapshots.len()), (3, 1));
    assert_eq!(list.snapshots[0].id, third, "the newest");
}

#[test]
fn tags_are_bounded() {
    let place = Place::initialised();
    let source = place.beside("source");
    for tags in [vec!["a,b"], vec![""], vec!["tucano-draft"], vec!["a"; 33]] {
        let backup = Backup {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..tree(&source)
        };
        let failure = place.asking.backup(backup).expect_err("no tag");
        assert_eq!(failure.class, Class::BadRequest, "{tags:?}: {failure}");
    }
}
