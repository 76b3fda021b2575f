use super::*;
use tucano_oci_image::{Limits, Store};

#[test]
fn uploads_are_limited_found_and_expired() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let (name, other): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
    let kept = directory.path().join("uploads");
    let sessions = Sessions::open(kept, 1);
    let begin = || sessions.begin(&name, 1, || Ok(store.begin_upload()?));
    let session = begin().unwrap();
    assert_eq!(begin().unwrap_err().code(), "TOOMANYREQUESTS");
    let id = session.id.to_string();
    assert!(sessions.find(&name, &id).is_ok());
    for (name, id) in [(&other, id.as_str()), (&name, "x")] {
        assert_eq!(
            sessions.find(name, id).unwrap_err().code(),
            "BLOB_UPLOAD_UNKNOWN"
        );
    }

    let mut guard = session.lock().unwrap();
    assert_eq!(session.lock().unwrap_err().status().as_u16(), 409);
    guard.write(&store, b"abc").unwrap();
    assert_eq!(session.bytes(), 3);
    assert_eq!(sessions.expire(Duration::ZERO), 0, "somebody writes to it");
    drop(guard);
    assert_eq!(sessions.expire(Duration::from_secs(60)), 0);
    assert_eq!(sessions.expire(Duration::ZERO), 1);
    assert!(sessions.find(&name, &id).is_err());
    drop(session);
    let scratch = std::fs::read_dir(directory.path().join("ingest")).unwrap();
    assert_eq!(scratch.count(), 0, "its file is gone");
    let kept = std::fs::read_dir(directory.path().join("uploads/a")).unwrap();
    assert_eq!(kept.count(), 0, "and its second name");
}

#[test]
fn uploads_of_an_earlier_run_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("uploads");
    let id = Uuid::new_v4();
    std::fs::create_dir_all(kept.join("a/b/empty")).unwrap();
    std::fs::write(kept.join(format!("a/b/_{id}")), "half").unwrap();
    for stray in ["a/b/_x", "a/notes", "_y"] {
        std::fs::write(kept.join(stray), "?").unwrap();
    }
    let sessions = Sessions::open(kept.clone(), 1);
    let session = sessions.find(&"a/b".parse().unwrap(), &id.to_string());
    assert_eq!(session.unwrap().bytes(), 4);
    assert!(
        sessions
            .find(&"a".parse().unwrap(), &id.to_string())
            .is_err()
    );
    let left = |path: &str| std::fs::read_dir(kept.join(path)).unwrap().count();
    assert_eq!((left(""), left("a"), left("a/b")), (1, 1, 1));
    drop(sessions);
    assert_eq!(Sessions::open(kept.clone(), 0).all().len(), 0);
    assert_eq!(left(""), 0, "uploads over the limit are removed");
}
