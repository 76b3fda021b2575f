use super::*;

fn table(version: &str) -> RouteTable {
    RouteTable {
        version: version.to_owned(),
        services: Vec::new(),
    }
}

#[test]
fn the_last_stored_table_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::new(&directory.path().join("routes.json"));
    assert_eq!(cache.load(1000).unwrap(), None);
    cache.store(&table("1")).unwrap();
    cache.store(&table("2")).unwrap();
    assert_eq!(cache.load(1000).unwrap(), Some(table("2")));
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "no temporary file remains");
}

#[test]
fn an_unreadable_or_too_large_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.json");
    let cache = Cache::new(&path);
    fs::write(&path, "{\"version\":").unwrap();
    let error = cache.load(1000).unwrap_err();
    assert!(matches!(error, CacheError::Parse(..)));
    assert!(error.to_string().contains("routes.json"));
    assert!(matches!(
        cache.load(5).unwrap_err(),
        CacheError::TooLarge(_)
    ));
}
